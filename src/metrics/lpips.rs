//! LPIPS with AlexNet, version 0.1 (Zhang, Isola, Efros, Shechtman, Wang, "The unreasonable
//! effectiveness of deep features as a perceptual metric", 2018).

use std::sync::LazyLock;

use half::f16;
use safetensors::{Dtype, SafeTensors};

use super::conv::{Convolution, Maps, Shape, max_pool};
use super::{Frame, MetricsError, check};

/// The smallest width and height in pixels. Of 31 pixels the first convolution leaves 7, the first
/// pooling 3 and the second pooling 1.
pub const MIN_SIDE: usize = 31;

/// The weights (5 MB) are part of the program, because a library has no data folder of its own.
static WEIGHTS: &[u8] = include_bytes!("../../assets/lpips/alex.safetensors");
static NETWORK: LazyLock<Result<Network, String>> = LazyLock::new(|| Network::read(WEIGHTS));

/// Mean of the network's training images for each channel, with values in [-1, 1].
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
/// Standard deviation of the network's training images for each channel.
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];
/// Prevents a division by zero for pixels without any feature.
const EPSILON: f32 = 1e-10;

/// AlexNet's convolutions.
const STAGES: [Shape; 5] = [
    Shape { kernel: 11, stride: 4, padding: 2, inputs: 3, outputs: 64 },
    Shape { kernel: 5, stride: 1, padding: 2, inputs: 64, outputs: 192 },
    Shape { kernel: 3, stride: 1, padding: 1, inputs: 192, outputs: 384 },
    Shape { kernel: 3, stride: 1, padding: 1, inputs: 384, outputs: 256 },
    Shape { kernel: 3, stride: 1, padding: 1, inputs: 256, outputs: 256 },
];
/// Stages whose input is pooled.
const POOLED: [usize; 2] = [1, 2];

/// LPIPS of two frames: 0 for equal frames, about 0.1 for a small and 0.5 for a large difference.
///
/// # Errors
/// [`MetricsError::DifferentSize`]; [`MetricsError::TooSmall`] for a side below [`MIN_SIDE`]
/// pixels.
pub fn lpips(a: Frame, b: Frame) -> Result<f64, MetricsError> {
    check("LPIPS", MIN_SIDE, a, b)?;
    let network = NETWORK.as_ref().map_err(|reason| MetricsError::Weights(reason.clone()))?;
    Ok(network.distance(scaled(a, b)))
}

/// Both frames as input of the network: normalised by [`SHIFT`] and [`SCALE`].
fn scaled(a: Frame, b: Frame) -> Maps {
    let pixels = [a.values, b.values].into_iter().flat_map(|values| values.chunks_exact(3));
    let scale = |pixel: &[f32]| std::array::from_fn::<_, 3, _>(|c| (pixel[c] * 2.0 - 1.0 - SHIFT[c]) / SCALE[c]);
    Maps { images: 2, height: a.height, width: a.width, channels: 3, values: pixels.flat_map(scale).collect() }
}

struct Stage {
    convolution: Convolution,
    /// The weight of a difference in each channel.
    importance: Vec<f32>,
}

struct Network {
    stages: Vec<Stage>,
}

impl Network {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let stages = STAGES.iter().enumerate().map(|(k, &shape)| {
            let weights = tensor(&tensors, &format!("conv{k}.weight"), shape.patch() * shape.outputs)?;
            let bias = tensor(&tensors, &format!("conv{k}.bias"), shape.outputs)?;
            let importance = tensor(&tensors, &format!("lin{k}.weight"), shape.outputs)?;
            Ok(Stage { convolution: Convolution::new(shape, &weights, bias), importance })
        });
        Ok(Self { stages: stages.collect::<Result<_, String>>()? })
    }

    /// The mean difference of the two images' features, summed over the stages.
    fn distance(&self, mut maps: Maps) -> f64 {
        let mut sum = 0.0;
        for (index, stage) in self.stages.iter().enumerate() {
            if POOLED.contains(&index) {
                maps = max_pool(&maps);
            }
            maps = stage.convolution.run(&maps);
            sum += difference(maps.image(0), maps.image(1), &stage.importance);
        }
        sum
    }
}

fn tensor(tensors: &SafeTensors, name: &str, length: usize) -> Result<Vec<f32>, String> {
    let view = tensors.tensor(name).map_err(|error| format!("{name}: {error}"))?;
    let (halves, rest) = view.data().as_chunks::<2>();
    if view.dtype() != Dtype::F16 || halves.len() != length || !rest.is_empty() {
        return Err(format!("{name} is not {length} F16 values"));
    }
    Ok(halves.iter().map(|&half| f16::from_le_bytes(half).to_f32()).collect())
}

/// The squared difference of the features' directions, weighted by channel and averaged over all
/// pixels.
fn difference(a: &[f32], b: &[f32], importance: &[f32]) -> f64 {
    let channels = importance.len();
    let pixels = a.chunks_exact(channels).zip(b.chunks_exact(channels));
    let sum: f64 = pixels.map(|(a, b)| f64::from(pixel_difference(a, b, importance))).sum();
    sum / (a.len() / channels) as f64
}

fn pixel_difference(a: &[f32], b: &[f32], importance: &[f32]) -> f32 {
    let inverse = |features: &[f32]| (features.iter().map(|f| f * f).sum::<f32>().sqrt() + EPSILON).recip();
    let (scale_a, scale_b) = (inverse(a), inverse(b));
    let weighed = a.iter().zip(b).zip(importance).map(|((a, b), weight)| weight * (a * scale_a - b * scale_b).powi(2));
    weighed.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_without_features_are_as_far_as_can_be() {
        assert_eq!(pixel_difference(&[0.0, 0.0], &[0.0, 0.0], &[1.0, 2.0]), 0.0);
        assert!((pixel_difference(&[0.0, 0.0], &[0.0, 3.0], &[1.0, 2.0]) - 2.0).abs() < 1e-6);
    }

    #[test]
    fn damaged_weights_are_an_error() {
        assert!(Network::read(&WEIGHTS[..1000]).is_err());
        assert!(Network::read(b"").is_err());
    }
}
