//! Writes SVG piece by piece, and renders it to pixels.

use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use resvg::{tiny_skia, usvg};

use crate::media::text::escape;
use crate::media::{MAX_SIDE, MediaError};

/// Colour of text and lines.
pub(super) const INK: &str = "#1f2328";
/// Colour of ticks and secondary text.
pub(super) const FAINT: &str = "#57606a";
/// Colour of text on dark ground.
const LIGHT: &str = "#e6e8eb";
/// Colour of lines behind the data.
pub(super) const GRID: &str = "#dfe3e8";

/// Font size of titles, in pixels.
pub(super) const TITLE: f64 = 17.0;
/// Font size of labels, in pixels.
pub(super) const LABEL: f64 = 14.0;
/// Font size of numbers, in pixels.
pub(super) const NUMBER: f64 = 12.5;

/// The part of a text that lies at its point.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A finished figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Svg {
    text: String,
    width: f64,
    height: f64,
}

impl Svg {
    /// The SVG document.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Width and height in CSS pixels.
    pub fn size(&self) -> (f64, f64) {
        (self.width, self.height)
    }

    /// The figure as a PNG with `scale` pixels per CSS pixel. A scale of 2 suits screens and
    /// slides. Text uses the built-in font, so the picture is the same on every machine.
    ///
    /// # Errors
    /// [`MediaError::Size`] if the scale is not positive or a side is larger than [`MAX_SIDE`].
    pub fn to_png(&self, scale: f64) -> Result<Vec<u8>, MediaError> {
        self.pixels(scale)?.encode_png().map_err(|error| failed(error.to_string()))
    }

    fn pixels(&self, scale: f64) -> Result<tiny_skia::Pixmap, MediaError> {
        let side = |length: f64| (length * scale).ceil().clamp(0.0, f64::from(u32::MAX)) as u32;
        let (width, height) = (side(self.width), side(self.height));
        if ![width, height].iter().all(|side| (1..=MAX_SIDE).contains(side)) {
            return Err(MediaError::Size { width, height });
        }
        let options = usvg::Options { font_family: FONT.into(), fontdb: fonts(), ..usvg::Options::default() };
        let tree = usvg::Tree::from_str(&self.text, &options).map_err(|error| failed(error.to_string()))?;
        let mut pixels =
            tiny_skia::Pixmap::new(width, height).ok_or_else(|| failed("no memory for its pixels".into()))?;
        let transform = tiny_skia::Transform::from_scale(scale as f32, scale as f32);
        resvg::render(&tree, transform, &mut pixels.as_mut());
        Ok(pixels)
    }
}

fn failed(reason: String) -> MediaError {
    MediaError::Encode { format: "figure", reason }
}

/// The RGB pixels of one line of light text on the given grey. A text that is wider than the line
/// is cut and ends in dots.
///
/// # Errors
/// [`MediaError::Size`] for a side of 0 or larger than [`MAX_SIDE`].
pub(in crate::media) fn text_line(
    text: &str,
    (width, height): (usize, usize),
    grey: u8,
) -> Result<Vec<u8>, MediaError> {
    let mut canvas = Canvas::new(width as f64, height as f64, text);
    canvas.put(format_args!("<rect width=\"100%\" height=\"100%\" fill=\"rgb({grey},{grey},{grey})\"/>\n"));
    let size = height as f64 * 0.72;
    let fitting = (width as f64 / text_width("x", size)) as usize;
    let shown = if text.chars().count() <= fitting {
        text.to_owned()
    } else {
        text.chars().take(fitting.saturating_sub(1)).chain(['…']).collect()
    };
    canvas.label([1.0, height as f64 * 0.78], size, LIGHT, Anchor::Start, &shown);
    let pixels = canvas.finish().pixels(1.0)?;
    // No pixel is transparent, so the opacity can be dropped.
    Ok(pixels.data().chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect())
}

/// Family name of the built-in font.
const FONT: &str = "Ubuntu Light";

fn fonts() -> Arc<usvg::fontdb::Database> {
    static FONTS: OnceLock<Arc<usvg::fontdb::Database>> = OnceLock::new();
    let load = || {
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
        // This font has symbols that the first font lacks.
        fonts.load_font_data(epaint_default_fonts::HACK_REGULAR.to_vec());
        fonts.set_sans_serif_family(FONT);
        Arc::new(fonts)
    };
    FONTS.get_or_init(load).clone()
}

/// Estimates the width of a text, in pixels.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.54
}

/// An unfinished SVG. Coordinates are pixels from the top left corner.
pub(super) struct Canvas {
    text: String,
    width: f64,
    height: f64,
}

impl Canvas {
    pub(super) fn new(width: f64, height: f64, title: &str) -> Self {
        let mut canvas = Self { text: String::new(), width, height };
        canvas.put(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} \
             {height:.0}\" role=\"img\" font-family=\"'Ubuntu Light', Ubuntu, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif\">\n\
             <title>{}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
            escape(title)
        ));
        canvas
    }

    pub(super) fn finish(mut self) -> Svg {
        self.text.push_str("</svg>\n");
        Svg { text: self.text, width: self.width.round(), height: self.height.round() }
    }

    /// Appends raw SVG.
    pub(super) fn put(&mut self, svg: std::fmt::Arguments) {
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(svg);
    }

    pub(super) fn label(&mut self, [x, y]: [f64; 2], size: f64, color: &str, anchor: Anchor, text: &str) {
        let anchor = anchor_name(anchor);
        self.put(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"{color}\" stroke=\"{color}\" stroke-width=\"0.2\" \
             text-anchor=\"{anchor}\">{}</text>\n",
            escape(text)
        ));
    }

    /// A text with a white rim, for places that lines cross.
    pub(super) fn halo_label(&mut self, [x, y]: [f64; 2], size: f64, color: &str, anchor: Anchor, text: &str) {
        if !text.is_empty() {
            let name = anchor_name(anchor);
            self.put(format_args!(
                "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"#ffffff\" stroke=\"#ffffff\" stroke-width=\"4\" \
                 stroke-linejoin=\"round\" text-anchor=\"{name}\">{}</text>\n",
                escape(text)
            ));
            self.label([x, y], size, color, anchor, text);
        }
    }

    /// A vertical text that reads upwards, centred at its point.
    pub(super) fn upright(&mut self, [x, y]: [f64; 2], size: f64, color: &str, text: &str) {
        self.put(format_args!(
            "<text transform=\"translate({x:.1} {y:.1}) rotate(-90)\" font-size=\"{size}\" fill=\"{color}\" stroke=\"{color}\" \
             stroke-width=\"0.2\" text-anchor=\"middle\">{}</text>\n",
            escape(text)
        ));
    }

    /// Draws something that shows `text` under the pointer.
    pub(super) fn with_tip(&mut self, text: &str, draw: impl FnOnce(&mut Self)) {
        self.put(format_args!("<g><title>{}</title>", escape(text)));
        draw(self);
        self.put(format_args!("</g>\n"));
    }

    pub(super) fn line(&mut self, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], color: &str, width: f64) {
        self.put(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{color}\" stroke-width=\"{width}\"/>\n"
        ));
    }

    /// The outline of a box.
    pub(super) fn frame(&mut self, [x, y]: [f64; 2], [width, height]: [f64; 2]) {
        self.put(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"none\" stroke=\"{FAINT}\" \
             stroke-width=\"1\"/>\n"
        ));
    }
}

fn anchor_name(anchor: Anchor) -> &'static str {
    match anchor {
        Anchor::Start => "start",
        Anchor::Middle => "middle",
        Anchor::End => "end",
    }
}
