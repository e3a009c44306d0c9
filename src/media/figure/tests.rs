//! Properties that figures must have for any data.

use super::*;
use resvg::usvg;

/// OKLab lightness of an sRGB colour (Ottosson 2020).
fn lightness(rgb: [u8; 3]) -> f64 {
    let [r, g, b] = rgb.map(|x| {
        let x = f64::from(x) / 255.0;
        if x <= 0.04045 { x / 12.92 } else { ((x + 0.055) / 1.055).powf(2.4) }
    });
    let l = (0.412_221_47 * r + 0.536_332_54 * g + 0.051_445_99 * b).cbrt();
    let m = (0.211_903_50 * r + 0.680_699_55 * g + 0.107_396_96 * b).cbrt();
    let s = (0.088_302_46 * r + 0.281_718_84 * g + 0.629_978_70 * b).cbrt();
    0.210_454_26 * l + 0.793_617_79 * m - 0.004_072_05 * s
}

#[test]
fn lightness_rises_evenly_along_the_maps() {
    for map in [ColorScale::Viridis, ColorScale::Gray] {
        let steps: Vec<f64> = (0..=20).map(|i| lightness(map.rgb(f64::from(i) / 20.0))).collect();
        let mean = (steps[20] - steps[0]) / 20.0;
        for pair in steps.windows(2) {
            let step = pair[1] - pair[0];
            assert!((0.3 * mean..2.0 * mean).contains(&step), "{map:?}: {step} of {mean}");
        }
    }
    let side = |x: f64| lightness(ColorScale::Diverging.rgb(x));
    for i in 0..10 {
        let x = f64::from(i) / 20.0;
        assert!(side(x) < side(x + 0.05) && (side(x) - side(1.0 - x)).abs() < 0.02, "{x}");
    }
    assert_eq!(ColorScale::Viridis.rgb(f64::NAN), ColorScale::Viridis.rgb(-3.0));
}

#[test]
fn ticks_are_round_and_inside() {
    assert_eq!(ticks::ticks(0.0, 1.0, 5), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
    assert_eq!(ticks::ticks(-0.3, 12.0, 6), [0.0, 5.0, 10.0]);
    assert_eq!(ticks::ticks(3.0, 3.0, 6), [3.0]);
    assert_eq!(ticks::index_ticks(50, 14), [0, 5, 10, 15, 20, 25, 30, 35, 40, 45]);
    assert_eq!(ticks::index_ticks(3, 10), [0, 1, 2]);
    assert_eq!(ticks::number(0.6000000000000001, 0.2), "0.6");
    assert_eq!(ticks::number(15.0, 5.0), "15");
    assert_eq!(ticks::number(2.5e-7, 1e-7), "2.50e-7");
    assert_eq!(ticks::span([f64::NAN].into_iter()), (0.0, 1.0));
}

fn heatmap(columns: usize, rows: usize) -> Heatmap {
    let value =
        |i: usize| (i % 11 != 3).then(|| 1.0 + 0.6 * ((i / columns) as f64 * 0.9 + (i % columns) as f64 * 0.05).sin());
    Heatmap {
        title: "Attention to the foreground".into(),
        subtitle: "model <x> & \"y\"".into(),
        x_label: "step (0 is the noisiest)".into(),
        y_label: "block".into(),
        value_label: "lift (1 is chance)".into(),
        columns,
        values: (0..columns * rows).map(value).collect(),
        row_marks: (0..rows).map(|row| if row % 3 == 0 { "F" } else { "B" }.into()).collect(),
        marks_label: "F foreground, B background".into(),
        colors: ColorScale::Diverging,
        middle: Some(1.0),
        range: None,
    }
}

fn plot() -> Plot {
    let series = |name: &str, height: f64, joined: bool| Series {
        name: name.into(),
        points: (0..30).map(|i| (f64::from(i), height * (1.0 + (f64::from(i) * 0.3).cos()))).collect(),
        labels: Vec::new(),
        spread: vec![0.1 * height; 30],
        joined,
    };
    let mut gap = series("gap", 0.5, true);
    gap.points[7].1 = f64::NAN;
    gap.labels = (0..30).map(|i| if i % 9 == 0 { format!("p{i}") } else { String::new() }).collect();
    let all = vec![series("one", 1.0, true), series("two", 1.4, true), gap, series("points", 0.3, false)];
    Plot {
        title: "Plot".into(),
        x_label: "step".into(),
        y_label: "value (dB)".into(),
        series: all,
        ..Default::default()
    }
}

fn map_grid() -> MapGrid {
    let panel = |seed: usize| MapPanel {
        values: (0..128).map(|i| ((i + seed) as f64 * 0.2).sin() + 1.0).collect(),
        outline: (0..128).map(|i| (4..9).contains(&(i % 16)) && (2..6).contains(&(i / 16))).collect(),
    };
    MapGrid {
        title: "Maps".into(),
        value_label: "attention received".into(),
        extents: [8, 16],
        row_names: vec!["block 0".into(), "block 11".into()],
        column_names: vec!["step 0".into(), "step 10".into(), "step 20".into()],
        panels: vec![Some(panel(0)), Some(panel(3)), None, Some(panel(5)), Some(panel(8)), Some(panel(9))],
        ..Default::default()
    }
}

/// The figures include extremes: a single cell, the 40 blocks of Wan-14B at 50 steps, and no data.
#[test]
fn every_figure_is_valid_svg_inside_its_page_and_becomes_a_png() {
    let empty = [Heatmap::default().svg(), Plot::default().svg(), MapGrid::default().svg()];
    let mut figures: Vec<Svg> = [(1, 1), (50, 40), (7, 3), (1000, 2)].map(|(c, r)| heatmap(c, r).svg()).to_vec();
    figures.extend([plot().svg(), map_grid().svg()]);
    figures.extend(empty);
    figures.push(Heatmap { range: Some((1.0, 1.0)), ..heatmap(4, 4) }.svg());
    figures.push(Heatmap { range: Some((2.0, 2.0)), middle: None, ..heatmap(4, 4) }.svg());
    for svg in figures {
        let tree = usvg::Tree::from_str(svg.as_str(), &usvg::Options::default()).unwrap();
        let (page, drawn) = (tree.size(), tree.root().abs_bounding_box());
        assert!(drawn.left() >= -1.0 && drawn.top() >= -1.0, "{drawn:?}");
        assert!(drawn.right() <= page.width() + 1.0 && drawn.bottom() <= page.height() + 1.0, "{drawn:?} {page:?}");
        let png = svg.to_png(1.0).unwrap();
        assert!(png.starts_with(b"\x89PNG"));
        assert!(!svg.as_str().contains("NaN") && !svg.as_str().contains("inf"));
    }
    assert!(plot().svg().to_png(0.0).is_err() && plot().svg().to_png(f64::NAN).is_err());
    assert!(plot().svg().to_png(1e9).is_err());
}

/// Text appears in the pixels, so the built-in font is found and has the glyphs.
#[test]
fn text_is_drawn_with_the_built_in_font() {
    let dark_pixels = |title: &str| {
        let png = Plot { title: title.into(), ..plot() }.svg().to_png(1.0).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        pixels.chunks(4).filter(|pixel| pixel[0] < 120).count()
    };
    assert!(dark_pixels("A title of some words") > dark_pixels("") + 100);
}

#[test]
fn titles_cannot_break_the_document() {
    let title = "</text><script>alert(1)</script> & \u{1} \"".to_owned();
    let svg = Plot { title, ..plot() }.svg();
    assert!(!svg.as_str().contains("<script>"));
    usvg::Tree::from_str(svg.as_str(), &usvg::Options::default()).unwrap();
}

/// Writes the figures of these tests into the folder FIGURES for inspection.
#[test]
#[ignore = "writes files to look at"]
fn show() {
    let folder = std::path::PathBuf::from(std::env::var("FIGURES").expect("FIGURES names a folder"));
    let figures = [
        ("heatmap", heatmap(50, 30).svg()),
        ("small", heatmap(8, 6).svg()),
        ("plot", plot().svg()),
        ("maps", map_grid().svg()),
    ];
    for (name, svg) in figures {
        std::fs::write(folder.join(format!("{name}.png")), svg.to_png(1.5).unwrap()).unwrap();
        std::fs::write(folder.join(format!("{name}.svg")), svg.as_str()).unwrap();
    }
}
