//! What was published for Wan2.1: calibrations of caching rules, and the negative prompt.

use super::config::TransformerConfig;

/// TeaCache's polynomials for Wan2.1 T2V, highest power first, for the time embedding and for the
/// time projection (`ret_steps`), from the method's repository (Apache-2.0). The published models
/// are told by their depth and width: 30 blocks of 1536 (1.3B) and 40 blocks of 5120 (14B).
pub fn tea_coefficients(config: &TransformerConfig) -> [Option<[f64; 5]>; 2] {
    match (config.num_layers, config.dim()) {
        (30, 1536) => [
            Some([2.39676752e3, -1.31110545e3, 2.01331979e2, -8.29855975, 1.37887774e-1]),
            Some([-5.21862437e4, 9.23041404e3, -5.28275948e2, 1.36987616e1, -4.99875664e-2]),
        ],
        (40, 5120) => [
            Some([-5784.54975374, 5449.50911966, -1811.16591783, 256.27178429, -13.02252404]),
            Some([-3.03318725e5, 4.90537029e4, -2.65530556e3, 5.87365115e1, -3.15583525e-1]),
        ],
        _ => [None, None],
    }
}

/// The negative prompt that Wan's own code takes for text to video if none is given
/// (`wan/configs/shared_config.py`).
pub const NEGATIVE_PROMPT: &str = "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，\
JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，\
杂乱的背景，三条腿，背景人很多，倒着走";
