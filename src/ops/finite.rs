//! Finds the first place in recorded work whose values are not finite.

use crate::gpu::{ElementType, Result, Stream, Tensor};

use super::Changes;

/// Whether no value is NaN or infinite.
pub fn all_finite(values: &[f32]) -> bool {
    // Without an early end in a part, the compiler checks many values at once.
    values.chunks(4096).all(|part| part.iter().fold(true, |finite, value| finite & value.is_finite()))
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
