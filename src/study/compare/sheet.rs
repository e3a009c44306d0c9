//! Contact sheets: the clips of all strategies on one prompt and seed.

use crate::media::{self, Clip, MediaError, SHEET_GAP, SheetCell};

use super::report::psnr;
use super::{Compared, Entry};

/// Largest width of a sheet, in pixels. Wider sheets are hard to view, and videos limit the width.
const WIDEST: usize = 2000;
/// Smallest width of a cell, in pixels. Narrower clips are enlarged, so that they and their
/// captions are readable.
const NARROWEST: u32 = 192;
/// Largest factor by which differences are enlarged. Beyond this, rounding would look like an
/// error.
const MOST_GAIN: u32 = 64;

/// A contact sheet of captioned clips below the prompt. The first clip is the clip without reuse,
/// and the other clips are in the order of the strategies. Each row of clips has a row of
/// differences to the clip without reuse below. All differences are enlarged by the same factor.
///
/// # Errors
/// [`MediaError`] if there are no clips or the sheet is too large.
pub fn sheet(compared: &Compared, entries: &[Entry]) -> Result<Clip, MediaError> {
    let baseline = compared.clips.first().ok_or(MediaError::NoFrames)?;
    let captions = captions(compared, entries);
    let gain = gain(&compared.clips);
    let differences = compared.clips.iter().map(|clip| difference(baseline, clip, gain));
    let differences = differences.collect::<Result<Vec<_>, _>>()?;
    let scale = (NARROWEST / baseline.width()).max(1);
    let pitch = (baseline.width() as usize + SHEET_GAP) * scale as usize;
    let columns = (WIDEST / pitch).clamp(1, captions.len().max(1));
    let of_difference = format!("difference x{gain}");
    let mut cells = Vec::new();
    let shown: Vec<(&Clip, &String)> = compared.clips.iter().zip(&captions).collect();
    for (clips, differences) in shown.chunks(columns).zip(differences.chunks(columns)) {
        cells.extend(clips.iter().map(|(clip, caption)| SheetCell { clip, caption }));
        // A short last row is filled up, so that the differences begin a row of their own.
        let black = SheetCell { clip: &differences[0], caption: "" };
        cells.extend(std::iter::repeat_n(black, columns - clips.len()));
        cells.extend(differences.iter().map(|clip| SheetCell { clip, caption: &of_difference }));
    }
    media::headed(&media::grid(&cells, columns, scale)?, &compared.case.caption())
}

/// The captions of all clips: the strategy, its speed-up and its PSNR.
fn captions(compared: &Compared, entries: &[Entry]) -> Vec<String> {
    let of = |entry: &Entry| {
        let name = entry.target.map_or(entry.name.clone(), |target| format!("{target}x {}", entry.name));
        let row = compared.rows.iter().find(|row| row.strategy == entry.name && row.target == entry.target);
        row.map_or(name.clone(), |row| format!("{name} {:.1} dB", psnr(row)))
    };
    std::iter::once("off".into()).chain(entries.iter().map(of)).collect()
}

/// The factor that brings the largest difference of all clips to white.
fn gain(clips: &[Clip]) -> u32 {
    let baseline = clips.first().map(Clip::frames).unwrap_or_default();
    let most = |clip: &Clip| {
        let values = baseline.iter().flatten().zip(clip.frames().iter().flatten());
        values.map(|(a, b)| a.abs_diff(*b)).max()
    };
    let largest = clips.iter().filter_map(most).max().unwrap_or(0);
    (255 / u32::from(largest.max(1))).clamp(1, MOST_GAIN)
}

/// Absolute differences of two clips, enlarged.
fn difference(baseline: &Clip, clip: &Clip, gain: u32) -> Result<Clip, MediaError> {
    let enlarged = |(a, b): (&u8, &u8)| (u32::from(a.abs_diff(*b)) * gain).min(255) as u8;
    let frame = |(a, b): (&Vec<u8>, &Vec<u8>)| a.iter().zip(b).map(enlarged).collect();
    let frames = baseline.frames().iter().zip(clip.frames()).map(frame).collect();
    Clip::new(baseline.width(), baseline.height(), baseline.fps(), frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::StrategyConfig;
    use crate::study::compare::Case;
    use crate::study::compare::report::tests::row;

    const SIDE: u32 = 16;

    /// A clip of one grey.
    fn clip(grey: u8) -> Clip {
        Clip::new(SIDE, SIDE, 8, vec![vec![grey; (SIDE * SIDE * 3) as usize]; 2]).unwrap()
    }

    fn compared(greys: &[u8]) -> (Compared, Vec<Entry>) {
        let entry = |number: usize| Entry {
            name: format!("s{number}"),
            target: Some(2.0),
            expected: None,
            config: StrategyConfig::off(),
        };
        let entries: Vec<Entry> = (1..greys.len()).map(entry).collect();
        let rows = entries.iter().map(|entry| row(&entry.name, entry.target, "a cat", 3)).collect();
        let case = Case { number: 0, prompt: "a cat".into(), seed: 3 };
        (Compared { case, rows, clips: greys.iter().copied().map(clip).collect() }, entries)
    }

    #[test]
    fn captions_have_the_fidelity_of_their_clips() {
        let (compared, entries) = compared(&[100, 110]);
        let fidelity = psnr(&compared.rows[0]);
        assert_eq!(captions(&compared, &entries), ["off".to_owned(), format!("2x s1 {fidelity:.1} dB")]);
    }

    /// A row of clips lies above a row of their differences, enlarged until the largest is white.
    #[test]
    fn differences_lie_below_their_clips() {
        let (compared, entries) = compared(&[100, 110, 150]);
        assert_eq!(gain(&compared.clips), 5);
        let sheet = sheet(&compared, &entries).unwrap();
        let pixel = |x: u32, y: u32| sheet.frames()[0][((y * sheet.width() + x) * 3) as usize];
        let (cell, row) = (sheet.width() / 3, sheet.height() / 2);
        let middles = [cell / 2, cell + cell / 2, 2 * cell + cell / 2];
        assert_eq!(middles.map(|x| pixel(x, row / 2)), [100, 110, 150]);
        assert_eq!(middles.map(|x| pixel(x, row + row / 2)), [0, 50, 250]);
        assert_eq!(gain(&[clip(7), clip(7)]), MOST_GAIN, "equal clips stay black");
    }

    #[test]
    fn a_short_last_row_is_filled_up() {
        let (compared, entries) = compared(&[100; 14]);
        let sheet = sheet(&compared, &entries).unwrap();
        assert!(sheet.width() as usize <= WIDEST + 2 * SHEET_GAP * 12, "{}", sheet.width());
        assert!(sheet.height() > 4 * NARROWEST, "two rows of clips and two of differences");
    }
}
