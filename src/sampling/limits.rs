//! Limits on the settings of a clip. Every check of a size or a count uses a name of this table.
//!
//! A limit on a request is not always the limit on files. Files may come from later versions of the
//! program, and a damaged file must not claim unlimited memory.

/// Largest number of denoising steps in a run. A schedule has at most one step for each training
/// timestep.
pub const MOST_STEPS: usize = 1000;
/// Largest number of denoising steps that the planner plans. Its time grows with the cube of the
/// steps, and it stores a step in a byte.
pub const MOST_PLANNED_STEPS: usize = 250;
/// Largest number of denoising steps in captures, profiles and calibrations.
pub const MOST_STORED_STEPS: usize = 2000;
/// Smallest width and height of a request, in pixels. A VAE turns 8x8 pixels into one latent cell.
pub const SMALLEST_SIDE: usize = 8;
/// Largest width and height of a request, in pixels. No model was trained on larger clips, and
/// shaders index with 32 bits.
pub const LARGEST_SIDE: usize = 4096;
/// Largest width and height of frames in files, in pixels. Contact sheets are larger than clips.
/// Video formats have the same limit.
pub const LARGEST_STORED_SIDE: usize = 8192;
/// Largest number of frames of a clip, in requests and in files. Each frame of a file takes memory,
/// even an empty one.
pub const MOST_FRAMES: usize = 10_000;
/// Highest frame rate, in frames per second. Files of clips cannot store more.
pub const MOST_FPS: u32 = 240;
/// Largest number of transformer blocks, in models and in files. It is far beyond any model.
pub const MOST_BLOCKS: usize = 1000;
