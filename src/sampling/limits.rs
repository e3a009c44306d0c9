//! The one table of limits on what a clip may be. Everything that checks a size or a count uses a
//! name from here.
//!
//! | name | value | limits | why |
//! |---|---|---|---|
//! | [`MOST_STEPS`] | 1000 | steps of a run | a schedule has one step for each training timestep at most |
//! | [`MOST_PLANNED_STEPS`] | 250 | steps that are planned for | the planner's time grows with the cube of the steps, and it keeps a step in a byte |
//! | [`MOST_STORED_STEPS`] | 2000 | steps in files | captures and profiles of later versions may hold more than a run of today |
//! | [`SMALLEST_SIDE`] | 8 | width and height asked for | a VAE turns 8x8 pixels into one latent cell |
//! | [`LARGEST_SIDE`] | 4096 | width and height asked for | no model was trained beyond it, and shaders index with 32 bits |
//! | [`LARGEST_STORED_SIDE`] | 8192 | width and height in files | contact sheets are larger than clips; video formats end here |
//! | [`MOST_FRAMES`] | 10,000 | frames of a clip, asked for or in files | an empty frame in a file must not cost memory without end |
//! | [`MOST_FPS`] | 240 | frames a second | files of clips can say no more |
//! | [`MOST_BLOCKS`] | 1000 | blocks of a transformer | far beyond any model; files must not claim more |

/// Most denoising steps of a run: one for each training timestep.
pub const MOST_STEPS: usize = 1000;
/// Most denoising steps that the planner plans for.
pub const MOST_PLANNED_STEPS: usize = 250;
/// Most denoising steps in captures, profiles and calibrations.
pub const MOST_STORED_STEPS: usize = 2000;
/// Smallest width and height in pixels that can be asked for.
pub const SMALLEST_SIDE: usize = 8;
/// Largest width and height in pixels that can be asked for.
pub const LARGEST_SIDE: usize = 4096;
/// Largest width and height in pixels of frames in files.
pub const LARGEST_STORED_SIDE: usize = 8192;
/// Most frames of a clip.
pub const MOST_FRAMES: usize = 10_000;
/// Most frames a second.
pub const MOST_FPS: u32 = 240;
/// Most blocks of a transformer, in models and in files.
pub const MOST_BLOCKS: usize = 1000;
