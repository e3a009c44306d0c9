//! Pictures of runs: which frames they show, and their textures.

use egui::{ColorImage, Rect, TextureOptions, Ui, vec2};

use super::view::Look;
use crate::app::data::likeness::ClipPair;
use crate::app::data::runs::Run;
use crate::app::data::selection::MapCell;
use crate::app::draw::textures;
use crate::engine::Frames;

/// The place of a texture in the pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// A frame of the picture with this index.
    Frame(usize),
    /// The attention map over the picture with this index.
    Attention(usize),
    /// The difference of two runs.
    Difference,
}

/// What a texture shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Shows {
    /// A frame.
    Frame {
        /// The run.
        run: u64,
        /// The run's version, or 0 for the estimate of a step, which never changes.
        version: u64,
        /// The step, or `None` for the clip.
        step: Option<usize>,
        /// The frame.
        frame: usize,
        /// Whether it is without colour.
        gray: bool,
    },
    /// The difference of two runs.
    Difference {
        /// Both runs.
        pair: ClipPair,
        /// The step, or `None` for the clip.
        step: Option<usize>,
        /// The frame.
        frame: usize,
        /// The difference at the end of the colours.
        greatest: u8,
    },
    /// An attention map.
    Attention {
        /// The run.
        run: u64,
        /// The run's version.
        version: u64,
        /// The cell.
        cell: MapCell,
        /// The cell that is subtracted.
        minus: Option<MapCell>,
        /// Whether the branch is the negative prompt's.
        uncond: bool,
        /// Whether attention paid to the subject's words is shown.
        paid: bool,
        /// The latent frame.
        frame: usize,
        /// The opacity, 0 to 255.
        opacity: u8,
        /// The bits of the values at both ends of the colours.
        range: [u32; 2],
    },
}

/// The textures of the pane.
pub type Textures = textures::Textures<Slot, Shows>;

/// The frames on show of a run.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// The frames. There is at least one.
    pub frames: &'a Frames,
    /// The step whose estimate they are, or `None` for the clip.
    pub step: Option<usize>,
}

impl Shown<'_> {
    /// Width divided by height.
    pub fn aspect(&self) -> f32 {
        self.frames.width.max(1) as f32 / self.frames.height.max(1) as f32
    }
}

/// The frames of a run for a step: its estimate or that of the last step before, or the clip for
/// `None`. Falls back on what there is.
pub fn frames(run: &Run, step: Option<usize>) -> Option<Shown<'_>> {
    let usable = |frames: &&Frames| !frames.frames.is_empty();
    let clip = run.capture.clip.as_ref().filter(usable).map(|frames| Shown { frames, step: None });
    let upto = |limit: usize| {
        let steps = run.capture.steps.iter().rev().filter(|record| record.step <= limit);
        let estimate = |record: &'_ crate::engine::StepRecord| record.preview.as_ref().is_some_and(|f| usable(&f));
        let record = steps.into_iter().find(|record| estimate(record))?;
        Some(Shown { frames: record.preview.as_ref()?, step: Some(record.step) })
    };
    match step {
        Some(step) => upto(step).or(clip),
        None => clip.or_else(|| upto(usize::MAX)),
    }
}

/// The frame of the token grid that a frame of the clip comes from. The first frame has a latent
/// frame of its own, later frames come in groups.
pub fn latent_frame(frame: usize, frames: usize, latent_frames: usize) -> usize {
    let last = latent_frames.saturating_sub(1);
    if frames <= latent_frames { frame.min(last) } else { (frame * last).div_ceil(frames - 1).min(last) }
}

/// The frame of a run's token grid that the frame on show comes from.
pub fn shown_latent_frame(run: &Run, look: Look<'_>) -> usize {
    let count = frames(run, look.step(run)).map_or(0, |shown| shown.frames.frames.len());
    latent_frame(look.view.frame.min(count.saturating_sub(1)), count, run.capture.run.token_grid[0])
}

/// The largest rectangle of a picture's shape in the middle of an area.
pub fn fit(area: Rect, width: usize, height: usize) -> Rect {
    let scale = (area.width() / width.max(1) as f32).min(area.height() / height.max(1) as f32).max(0.0);
    Rect::from_center_size(area.center(), vec2(width as f32 * scale, height as f32 * scale))
}

/// A texture with the size of its picture.
#[derive(Clone, Copy)]
pub struct Picture {
    /// The texture.
    pub texture: egui::TextureId,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
}

/// The picture of a run with an index in the pane, or `None` if the run has no such frame. Without
/// colour (`gray`) the colours of a map over it can be told.
pub fn picture(
    ui: &Ui,
    textures: &mut Textures,
    index: usize,
    run: &Run,
    look: Look<'_>,
    gray: bool,
) -> Option<Picture> {
    let Shown { frames, step } = frames(run, look.step(run))?;
    let frame = look.view.frame.min(frames.frames.len() - 1);
    let shows = Shows::Frame { run: run.id, version: if step.is_some() { 0 } else { run.version }, step, frame, gray };
    let image = || {
        let size = [frames.width, frames.height];
        if gray {
            without_colour(size, &frames.frames[frame])
        } else {
            ColorImage::from_rgb(size, &frames.frames[frame])
        }
    };
    let texture = textures.get(ui.ctx(), Slot::Frame(index), shows, TextureOptions::LINEAR, image);
    Some(Picture { texture, width: frames.width, height: frames.height })
}

/// A frame in grey, by the luma of BT.601.
fn without_colour(size: [usize; 2], rgb: &[u8]) -> ColorImage {
    let gray = |pixel: &[u8]| {
        let [r, g, b] = [0, 1, 2].map(|channel| f32::from(pixel[channel]));
        egui::Color32::from_gray((0.299 * r + 0.587 * g + 0.114 * b).round() as u8)
    };
    ColorImage::new(size, rgb.chunks_exact(3).map(gray).collect())
}

/// Equal pictures in rows and columns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PictureGrid {
    /// Number of columns.
    pub columns: usize,
    /// Number of rows.
    pub rows: usize,
    /// Width and height of a picture, in points.
    pub picture: egui::Vec2,
}

/// The rows and columns in which pictures of an aspect (width divided by height) are largest.
pub fn grid(area: egui::Vec2, count: usize, aspect: f32) -> PictureGrid {
    let count = count.max(1);
    let of = |columns: usize| {
        let rows = count.div_ceil(columns);
        let (width, height) = (area.x / columns as f32, area.y / rows as f32);
        let width = width.min(height * aspect);
        PictureGrid { columns, rows, picture: vec2(width, width / aspect.max(1e-3)) }
    };
    (2..=count).map(of).fold(of(1), |best, other| if other.picture.x >= best.picture.x { other } else { best })
}

/// The places of pictures of an aspect in an area, in reading order.
pub fn places(area: Rect, count: usize, aspect: f32) -> Vec<Rect> {
    let PictureGrid { columns, rows, .. } = grid(area.size(), count, aspect);
    let size = vec2(area.width() / columns as f32, area.height() / rows as f32);
    let gap = if count > 1 { 3.0 } else { 0.0 };
    let place = |index: usize| {
        let offset = vec2((index % columns) as f32 * size.x, (index / columns) as f32 * size.y);
        Rect::from_min_size(area.min + offset, size).shrink(gap)
    };
    (0..count.max(1)).map(place).collect()
}

#[cfg(test)]
mod tests {
    use egui::{Vec2, pos2};

    use super::*;

    #[test]
    fn frames_of_the_clip_find_their_latent_frame() {
        let found: Vec<usize> = (0..17).map(|frame| latent_frame(frame, 17, 5)).collect();
        assert_eq!(found, [0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4]);
        assert_eq!((0..5).map(|frame| latent_frame(frame, 5, 5)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!((latent_frame(0, 1, 1), latent_frame(9, 3, 0), latent_frame(7, 8, 1)), (0, 0, 0));
    }

    #[test]
    fn several_pictures_are_as_large_as_they_can_be() {
        let columns = |width, height, count, aspect| grid(vec2(width, height), count, aspect).columns;
        assert_eq!((columns(600.0, 300.0, 2, 1.0), columns(300.0, 600.0, 2, 1.0)), (2, 1));
        assert_eq!((columns(600.0, 500.0, 4, 1.0), columns(1200.0, 300.0, 4, 1.0)), (2, 4));
        assert_eq!(columns(700.0, 400.0, 2, 3.0), 1, "wide pictures stand above each other");
        let area = Rect::from_min_size(pos2(5.0, 5.0), vec2(600.0, 500.0));
        let places = places(area, 3, 1.0);
        assert!(places.len() == 3 && places.iter().all(|place| area.contains_rect(*place)));
    }

    #[test]
    fn pictures_under_maps_have_no_colour() {
        let image = without_colour([2, 1], &[255, 0, 0, 10, 10, 10]);
        assert_eq!(image.pixels, [egui::Color32::from_gray(76), egui::Color32::from_gray(10)]);
    }

    #[test]
    fn pictures_keep_their_shape() {
        let area = Rect::from_min_size(pos2(10.0, 10.0), vec2(200.0, 100.0));
        assert_eq!(fit(area, 64, 64).size(), vec2(100.0, 100.0));
        assert_eq!(fit(area, 0, 0).size(), Vec2::ZERO);
    }
}
