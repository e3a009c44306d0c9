//! Pictures of panes and of the whole window.

use std::collections::HashMap;
use std::sync::Arc;

use egui::{ColorImage, Rect, ViewportCommand};

use crate::media::Clip;

/// A picture that was asked for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// The key of the pane; `None` for the whole window.
    pane: Option<&'static str>,
    /// Frames of the window to wait, so that the menu that asked is gone.
    wait: u8,
}

/// The places of the panes, and the picture that was asked for.
#[derive(Debug, Default)]
pub struct Pictures {
    places: HashMap<String, Rect>,
    wanted: Option<Wanted>,
}

/// Frames of the window until a menu that was clicked is gone.
const SETTLE: u8 = 3;

impl Pictures {
    /// Remembers the place of a pane.
    pub fn place(&mut self, pane: &str, rect: Rect) {
        match self.places.get_mut(pane) {
            Some(place) => *place = rect,
            None => {
                self.places.insert(pane.into(), rect);
            }
        }
    }

    /// Asks for a picture of the pane with a key, or of the window.
    pub fn want(&mut self, pane: Option<&'static str>) {
        self.wanted = Some(Wanted { pane, wait: SETTLE });
    }

    /// Takes the picture that was asked for, once it is time. `then` gets it, or a text for the
    /// user.
    pub fn take(&mut self, ctx: &egui::Context, then: impl FnOnce(Result<Clip, String>) + Send + 'static) {
        let Some(wanted) = &mut self.wanted else { return };
        ctx.request_repaint();
        if wanted.wait > 0 {
            wanted.wait -= 1;
            return;
        }
        let pane = wanted.pane;
        self.wanted = None;
        let all = ctx.content_rect();
        let rect = pane.map_or(Some(all), |pane| self.places.get(pane).copied());
        let scale = ctx.pixels_per_point();
        let callback = move |image: Arc<ColorImage>| {
            then(rect.and_then(|rect| crop(&image, rect, scale)).ok_or_else(|| "The pane cannot be seen.".into()));
        };
        ctx.send_viewport_cmd(ViewportCommand::Screenshot(egui::ScreenshotCallback::new(callback)));
    }
}

/// A part of a picture of the window; `None` where nothing is left of it.
fn crop(image: &ColorImage, rect: Rect, scale: f32) -> Option<Clip> {
    let [width, height] = image.size;
    let pixel = |at: f32, most: usize| (at * scale).round().clamp(0.0, most as f32) as usize;
    let (left, right) = (pixel(rect.left(), width), pixel(rect.right(), width));
    let (top, bottom) = (pixel(rect.top(), height), pixel(rect.bottom(), height));
    let rows = (top..bottom).map(|row| image.pixels.get(row * width + left..row * width + right));
    let rows: Vec<&[egui::Color32]> = rows.collect::<Option<_>>()?;
    let rgb = rows.into_iter().flatten().flat_map(|pixel| [pixel.r(), pixel.g(), pixel.b()]).collect();
    Clip::new(right.checked_sub(left)? as u32, bottom.checked_sub(top)? as u32, 1, vec![rgb]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_picture_are_cut_to_it() {
        let mut image = ColorImage::filled([8, 6], egui::Color32::BLACK);
        image.pixels[2 * 8 + 4] = egui::Color32::WHITE;
        let part = |x0: f32, y0: f32, x1: f32, y1: f32| {
            crop(&image, Rect::from_min_max(egui::pos2(x0, y0), egui::pos2(x1, y1)), 2.0)
        };
        let cut = part(2.0, 1.0, 3.0, 2.0).unwrap();
        assert_eq!((cut.width(), cut.height(), cut.frames()[0][0]), (2, 2, 255));
        let whole = part(-5.0, -5.0, 99.0, 99.0).unwrap();
        assert_eq!((whole.width(), whole.height()), (8, 6));
        assert!(part(9.0, 0.0, 12.0, 2.0).is_none() && part(3.0, 0.0, 1.0, 2.0).is_none());
    }
}
