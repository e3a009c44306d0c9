//! The folder of a comparison: settings.json, rows.json and rows.csv, report.md and report.html,
//! figures, and sheets/.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::media::{self, Clip, write_bytes};

use super::page::{PageSheet, page};
use super::{Compared, Entry, Row, Settings, StudyError, report, sheet};

/// File of the settings.
const SETTINGS: &str = "settings.json";
/// File of all rows so far.
const ROWS: &str = "rows.json";
/// Folder of the contact sheets.
const SHEETS: &str = "sheets";
/// The kinds of contact sheets: a video, and a picture of the middle frame.
pub(super) const SHEET_KINDS: [&str; 2] = ["mp4", "png"];
/// Largest number of bytes of a file that is read.
const MOST_BYTES: u64 = 256 << 20;

/// The folder of a comparison.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A folder, which need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the folder.
    ///
    /// # Errors
    /// [`StudyError::Io`].
    pub fn make(&self) -> Result<(), StudyError> {
        let sheets = self.0.join(SHEETS);
        std::fs::create_dir_all(&sheets).map_err(StudyError::io("cannot make", &sheets))
    }

    /// Whether the folder has rows of a comparison, which a new comparison would replace.
    pub fn has_rows(&self) -> bool {
        const EMPTY: u64 = "[]".len() as u64;
        std::fs::metadata(self.0.join(ROWS)).is_ok_and(|file| file.len() > EMPTY)
    }

    /// Reads the settings and the rows, which may be empty.
    ///
    /// # Errors
    /// [`StudyError::Io`]; [`StudyError::Json`] for a file that does not belong to a comparison.
    pub fn read(&self) -> Result<(Settings, Vec<Row>), StudyError> {
        let settings = read_json(&self.0.join(SETTINGS))?;
        let rows = self.0.join(ROWS);
        Ok((settings, if rows.exists() { read_json(&rows)? } else { Vec::new() }))
    }

    /// Makes the folder and writes the rows and the settings.
    pub(super) fn begin(&self, settings: &Settings, rows: &[Row]) -> Result<(), StudyError> {
        self.make()?;
        // The rows are written first, so that rows of another comparison never stand beside the new
        // settings.
        self.write_rows(rows)?;
        self.write_settings(settings)
    }

    /// Writes the settings.
    ///
    /// # Errors
    /// [`StudyError::Media`] if the file cannot be written.
    pub fn write_settings(&self, settings: &Settings) -> Result<(), StudyError> {
        let text = serde_json::to_vec_pretty(settings).map_err(StudyError::Unwritable)?;
        Ok(write_bytes(&self.0.join(SETTINGS), &text)?)
    }

    /// Writes the rows, as CSV for people and as JSON for resuming.
    ///
    /// # Errors
    /// [`StudyError::Media`] if a file cannot be written.
    pub fn write_rows(&self, rows: &[Row]) -> Result<(), StudyError> {
        write_bytes(&self.0.join(ROWS), &serde_json::to_vec(rows).map_err(StudyError::Unwritable)?)?;
        Ok(write_bytes(&self.0.join("rows.csv"), report::csv(rows).as_bytes())?)
    }

    /// Writes the report in Markdown and as a page, and the figures.
    ///
    /// # Errors
    /// [`StudyError::Io`] or [`StudyError::Media`] if a file cannot be read or written.
    pub fn write_report(&self, settings: &Settings, rows: &[Row]) -> Result<(), StudyError> {
        let sheets = self.sheets()?;
        write_bytes(&self.0.join("report.md"), report::markdown(settings, rows, &sheets).as_bytes())?;
        let page =
            page(settings, rows, sheets.into_iter().filter_map(|(name, caption)| self.read_sheet(&name, caption)));
        write_bytes(&self.0.join("report.html"), page.as_bytes())?;
        for measure in report::MEASURES {
            let svg = report::pareto(&measure, &settings.strategies, rows).svg();
            let file = |end: &str| self.0.join(format!("pareto-{}.{end}", measure.name));
            write_bytes(&file("svg"), svg.as_str().as_bytes())?;
            write_bytes(&file("png"), &svg.to_png(2.0)?)?;
        }
        Ok(())
    }

    /// Writes the contact sheet of a prompt and seed, as a video and as a picture of the middle
    /// frame.
    pub(super) fn write_sheet(&self, compared: &Compared, entries: &[Entry]) -> Result<(), StudyError> {
        let sheet = sheet(compared, entries)?;
        let case = &compared.case;
        let [play, still] = SHEET_KINDS.map(|kind| self.sheet(case.number, case.seed, kind));
        media::write(&play, &sheet, &case.caption())?;
        let middle = sheet.frames()[sheet.frames().len() / 2].clone();
        let middle = Clip::new(sheet.width(), sheet.height(), sheet.fps(), vec![middle])?;
        Ok(media::write(&still, &middle, &case.caption())?)
    }

    /// The names of all contact sheets without their endings, in order, with their captions.
    fn sheets(&self) -> Result<Vec<(String, String)>, StudyError> {
        let folder = self.0.join(SHEETS);
        let listed = match std::fs::read_dir(&folder) {
            Ok(listed) => listed,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StudyError::io("cannot read", &folder)(error)),
        };
        let [play, _] = SHEET_KINDS;
        let mut names = Vec::new();
        for file in listed {
            let path = file.map_err(StudyError::io("cannot read", &folder))?.path();
            let name = path.file_stem().and_then(|name| name.to_str()).map(str::to_owned);
            if let (Some(name), true) = (name, path.extension().is_some_and(|extension| extension == play)) {
                let caption = media::read_settings(&path).ok().flatten().unwrap_or_else(|| name.clone());
                names.push((name, caption));
            }
        }
        names.sort();
        Ok(names)
    }

    /// A contact sheet for the page. `None` if its files cannot be read.
    fn read_sheet(&self, name: &str, caption: String) -> Option<PageSheet> {
        let [play, still] = SHEET_KINDS;
        let read = |kind: &str| std::fs::read(self.0.join(SHEETS).join(format!("{name}.{kind}"))).ok();
        Some(PageSheet { mp4: read(play)?, png: read(still)?, caption })
    }

    /// Writes the comparison to another folder, with its report and contact sheets.
    ///
    /// # Errors
    /// [`StudyError::Request`] if the other folder has a comparison; [`StudyError::Io`] or
    /// [`StudyError::Media`] if a file cannot be read or written.
    pub fn export(&self, to: &Self, settings: &Settings, rows: &[Row]) -> Result<(), StudyError> {
        if to.has_rows() {
            let message = format!("{} holds a comparison: name another folder", to.0.display());
            return Err(StudyError::Request(message));
        }
        to.begin(settings, rows)?;
        let sheets = self.0.join(SHEETS);
        let listed = std::fs::read_dir(&sheets).map_err(StudyError::io("cannot read", &sheets))?;
        for sheet in listed {
            let sheet = sheet.map_err(StudyError::io("cannot read", &sheets))?;
            copy(&sheet.path(), &to.0.join(SHEETS).join(sheet.file_name()))?;
        }
        to.write_report(settings, rows)
    }

    /// The path of the contact sheet of a prompt (from 0) and seed.
    pub fn sheet(&self, number: usize, seed: u64, kind: &str) -> PathBuf {
        self.0.join(SHEETS).join(format!("{:03}-seed{seed}.{kind}", number + 1))
    }
}

/// Copies a file. The copy appears whole or not at all.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), StudyError> {
    let bytes = std::fs::read(from).map_err(StudyError::io("cannot read", from))?;
    Ok(write_bytes(to, &bytes)?)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, StudyError> {
    let mut text = Vec::new();
    let file = std::fs::File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut text));
    file.map_err(StudyError::io("cannot read", path))?;
    serde_json::from_slice(&text).map_err(|source| StudyError::Json { path: path.to_owned(), source })
}
