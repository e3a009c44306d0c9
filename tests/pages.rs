//! Pages of results in a real browser, where Chromium is installed.

use std::path::Path;
use std::process::{Command, Stdio};

use ditscope::media::{Clip, Page, Table, TableCell, mp4_bytes};

/// A page with a table of three rows and a clip.
fn page() -> String {
    let row = |name: &str, psnr: f64| vec![TableCell::text(name), TableCell::number(format!("{psnr} dB"), psnr)];
    let rows = vec![row("b", 9.5), row("c", 61.0), row("a", 30.0)];
    let mut page = Page::new("A title", "and its meaning");
    page.table(&Table { columns: vec!["strategy".into(), "PSNR".into()], rows });
    let clip = Clip::new(32, 32, 8, vec![vec![120; 32 * 32 * 3]; 3]).expect("a clip");
    page.video(&mp4_bytes(&clip, "").expect("an MP4"), None, "the clip");
    page.finish()
}

/// The document after its scripts have run, and what the browser had to say.
fn opened(browser: &str, page: &Path) -> (String, String) {
    let profile = tempfile::tempdir().expect("temporary folder");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"])
        .args(["--enable-logging=stderr", "--v=0"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("the browser starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_browser_plays_and_sorts_a_page_without_a_complaint() {
    let runs = |name: &&str| {
        let asked = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    };
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(runs) else {
        println!("no Chromium here: nothing was checked");
        return;
    };
    // A script of the test sorts by PSNR, and reports whether the clip can be played.
    let script = r#"<script>
        document.querySelectorAll("th")[1].click();
        const video = document.querySelector("video");
        const tell = () => document.body.dataset.clip = video.videoWidth + "x" + video.videoHeight;
        video.readyState > 0 ? tell() : video.addEventListener("loadedmetadata", tell);
    </script></body>"#;
    let place = tempfile::tempdir().expect("temporary folder");
    let path = place.path().join("page.html");
    std::fs::write(&path, page().replace("</body>", script)).expect("written");
    let (document, said) = opened(browser, &path);
    let position = |cell: &str| document.find(cell).unwrap_or_else(|| panic!("no {cell}: {document}"));
    assert!(position("61 dB") < position("30 dB") && position("30 dB") < position("9.5 dB"), "{document}");
    assert!(document.contains("aria-sort=\"descending\""), "{document}");
    assert!(document.contains("data-clip=\"32x32\""), "the clip does not load: {document}");
    for complaint in ["Refused to", "Uncaught", "Content Security Policy"] {
        assert!(!said.contains(complaint), "{said}");
    }
}
