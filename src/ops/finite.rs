//! Finds the first place in recorded work whose values are not finite.

use crate::gpu::{ElementType, Result, Stream, Tensor};

use super::Changes;

/// Whether no value is NaN or infinite.
pub fn all_finite(values: &[f32]) -> bool {
    /// The compiler sums so many values at once.
    const LANES: usize = 16;
    let (parts, rest) = values.as_chunks::<LANES>();
    // A product with zero is zero, or NaN for a value that is not finite. Sums keep NaN.
    let mut sums = [0.0; LANES];
    for part in parts {
        sums.iter_mut().zip(part).for_each(|(sum, value)| *sum += value * 0.0);
    }
    sums.iter().chain(rest).all(|value| value.is_finite())
}

/// Notes in a traced stream whether an f32 tensor is finite at this point of the work. Does nothing
/// in a stream without a trace.
///
/// # Errors
/// An error of the GPU.
pub fn mark(cx: &mut Stream, place: impl FnOnce() -> String, tensor: &Tensor) -> Result<()> {
    if cx.is_traced() && !tensor.is_empty() && tensor.element_type() == ElementType::F32 {
        // The sum of all magnitudes is finite only if each of them is.
        let changes = Changes::new(cx, 1, tensor.len())?;
        changes.measure(cx, 0, tensor, tensor)?;
        let sums = changes.sums(cx)?;
        cx.note(place(), sums);
    }
    Ok(())
}

/// Ends a trace, and names the first marked place that is not finite.
///
/// # Errors
/// An error of the GPU.
pub fn first_not_finite(cx: &mut Stream) -> Result<Option<String>> {
    let notes = cx.take_trace();
    let sums = cx.read_all::<f32>(&notes.iter().map(|note| &note.tensor).collect::<Vec<_>>())?;
    let broken = notes.into_iter().zip(sums).find(|(_, sums)| !all_finite(sums));
    Ok(broken.map(|(note, _)| note.place))
}

#[cfg(test)]
mod tests {
    /// The cost of a check, to be compared with the time of a step: three checks a step with
    /// guidance, two without.
    #[test]
    #[ignore = "a measurement"]
    fn cost() {
        for (clip, count) in [("64x64, 17 frames", 16 * 5 * 8 * 8), ("832x480, 81 frames", 16 * 21 * 60 * 104)] {
            let values = vec![0.5; count];
            let time = || {
                let start = std::time::Instant::now();
                assert!(super::all_finite(std::hint::black_box(&values)));
                start.elapsed()
            };
            println!("latents of {clip}: {:?}", (0..300).map(|_| time()).min().unwrap_or_default());
        }
    }

    use super::*;
    use crate::gpu::StreamOptions;
    use crate::ops::testing::gpu;

    #[test]
    fn the_first_place_that_is_not_finite_is_named() {
        let (gpu, _turn) = gpu();
        let mut cx = Stream::new(&gpu, StreamOptions::default());
        let length = 3 * 4096 + 4;
        for (broken, found) in [(f32::NAN, true), (f32::INFINITY, true), (f32::NEG_INFINITY, true), (1e30, false)] {
            for at in [0, 4095, 4096, length - 1] {
                let mut values = vec![1.0; length];
                let before = cx.upload("before", &values, &[length / 4, 4]).unwrap();
                values[at] = broken;
                assert_eq!(all_finite(&values), !found, "{broken} at {at}");
                let after = cx.upload("after", &values, &[length / 4, 4]).unwrap();
                mark(&mut cx, || panic!("nothing is traced"), &after).unwrap();
                cx.start_trace();
                for (place, tensor) in [("before", &before), ("after", &after), ("later", &after)] {
                    mark(&mut cx, || place.into(), tensor).unwrap();
                }
                let first = first_not_finite(&mut cx).unwrap();
                assert_eq!(first.as_deref(), found.then_some("after"), "{broken} at {at}");
                assert!(!cx.is_traced());
            }
        }
    }
}
