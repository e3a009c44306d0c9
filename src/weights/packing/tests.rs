use super::*;

/// Blocks of random bytes and their values by the PyPI package `gguf` (tests/golden/packed.py).
const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/weights/packed.safetensors");

// Every bit of every format takes part. The test catches each exchanged nibble, shift, sign, order
// of groups, and a sum in another order.
#[test]
fn values_are_those_of_the_reference_bit_for_bit() {
    let golden = safetensors::SafeTensors::deserialize(GOLDEN).unwrap();
    for packing in Packing::ALL {
        let get = |what: &str| golden.tensor(&format!("{}.{what}", packing.name())).unwrap();
        let (elements, size) = packing.block();
        let (stored, values) = (get("stored"), get("values"));
        let expected: Vec<u32> =
            values.data().as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        assert_eq!(expected.len() / elements, stored.data().len() / size);
        let found: Vec<u32> = packing.decode(stored.data()).into_iter().map(f32::to_bits).collect();
        assert!(found == expected, "{}", packing.name());
        assert!(packing.decode(&stored.data()[..size - 1]).is_empty(), "an incomplete block is ignored");
    }
}
