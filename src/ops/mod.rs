//! Room `ops`: the host side of every kernel, one file per family. Knows `gpu`, and the types of
//! weights.
//!
//! An operation takes the [`Stream`](crate::gpu::Stream) and tensors, and checks their shapes. It
//! splits rows so that no binding and no dispatch exceeds the device's limits, and returns new
//! tensors. Activations are f32, row-major, and their last extent is a multiple of 4 (padding holds
//! zeros). Every kernel has a CPU twin in its file's tests.

mod attention;
pub mod bench;
mod conv;
mod elementwise;
mod finite;
mod heads;
mod image;
mod matmul;
mod norm;
mod packed;
mod received;
mod reduce;
mod sample;
pub mod selftest;
mod split;
mod tune;
mod weight;

pub use attention::{Attention, AttentionBias, AttentionVariant, attention, attention_with};
pub use conv::{Conv, Target, conv, conv_variants, conv_with};
pub use elementwise::{Term, add_rows, add_scaled, sample_rows, silu, subtract_from};
pub use finite::{all_finite, first_not_finite, mark};
pub use heads::{HeadsNorm, HeadsPart, RopeTable, project_heads};
pub use image::{channel_norm, row_softmax, transpose};
pub use matmul::{Activation, Then, Variant, matmul, matmul_with};
pub use norm::{LayerNormThen, inverse_rms, layer_norm, rms_norm};
pub use packed::{Factors, is_packed, packed_bytes};
pub use received::{Received, Rows, attention_paid, attention_received, attention_received_with, sampled_rows};
pub use reduce::Changes;
pub use split::{LARGEST_PART, row_parts};
pub use weight::{HostWeight, Weight, vector};

use crate::gpu::arguments::Interface;

/// The declared arguments of all kernels. `tests/shaders.rs` compares them with the shaders.
pub const INTERFACES: &[&Interface] = &[
    attention::AttentionArguments::INTERFACE,
    bench::PeakCopy::INTERFACE,
    bench::PeakFma::INTERFACE,
    conv::ConvProduct::INTERFACE,
    elementwise::Activate::INTERFACE,
    elementwise::AddRows::INTERFACE,
    elementwise::Combine::INTERFACE,
    elementwise::SampleRows::INTERFACE,
    heads::SplitHeads::INTERFACE,
    image::ChannelNorm::INTERFACE,
    image::RowSoftmax::INTERFACE,
    image::Transpose::INTERFACE,
    matmul::Product::INTERFACE,
    norm::Norm::INTERFACE,
    received::PaidArguments::INTERFACE,
    received::ReceivedArguments::INTERFACE,
    received::SumRows::INTERFACE,
    reduce::Change::INTERFACE,
    reduce::ChangeSums::INTERFACE,
];

#[cfg(test)]
pub(crate) mod testing;
