//! A page of results: one HTML file that holds everything it shows.
//!
//! The page needs no server and no network: clips and pictures are inside the file, and its content
//! security policy forbids to load anything. All texts are escaped. The page is well-formed XML as
//! well, so that the tests can check it with a strict parser.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::figure::Svg;
use super::text::escape;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Only what the file itself holds may be shown or run.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      img-src data:; media-src data:";

/// A page that is being written.
#[derive(Clone, Debug)]
pub struct Page {
    title: String,
    body: String,
}

/// A table whose rows can be sorted by a click on a heading.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The headings.
    pub columns: Vec<String>,
    /// The cells, row by row.
    pub rows: Vec<Vec<TableCell>>,
}

/// A cell of a [`Table`].
#[derive(Clone, Debug, PartialEq)]
pub struct TableCell {
    /// The text.
    pub text: String,
    /// The number by which the row is sorted. `None` sorts by the text.
    pub value: Option<f64>,
}

impl TableCell {
    /// A cell of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), value: None }
    }

    /// A cell that shows `text` and is sorted by `value`.
    pub fn number(text: impl Into<String>, value: f64) -> Self {
        Self { text: text.into(), value: Some(value) }
    }
}

impl Page {
    /// A page with a title and a line below the title.
    pub fn new(title: &str, subtitle: &str) -> Self {
        let mut page = Self { title: title.into(), body: String::new() };
        page.put(format_args!("<h1>{}</h1>\n<p class=\"subtitle\">{}</p>\n", escape(title), escape(subtitle)));
        page
    }

    /// Begins a section.
    pub fn heading(&mut self, text: &str) {
        self.put(format_args!("<h2>{}</h2>\n", escape(text)));
    }

    /// Adds a paragraph.
    pub fn paragraph(&mut self, text: &str) {
        self.put(format_args!("<p>{}</p>\n", escape(text)));
    }

    /// Adds a paragraph that stands out.
    pub fn warning(&mut self, text: &str) {
        self.put(format_args!("<p class=\"warning\">{}</p>\n", escape(text)));
    }

    /// Adds names and their values.
    pub fn facts(&mut self, facts: &[(&str, String)]) {
        self.put(format_args!("<table class=\"facts\"><tbody>\n"));
        for (name, value) in facts {
            let (name, value) = (escape(name), escape(value));
            self.put(format_args!("<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>\n"));
        }
        self.put(format_args!("</tbody></table>\n"));
    }

    /// Adds a table.
    pub fn table(&mut self, table: &Table) {
        let number = |column: usize| table.rows.iter().any(|row| row.get(column).is_some_and(|c| c.value.is_some()));
        let class = |column: usize| if number(column) { " class=\"number\"" } else { "" };
        self.put(format_args!("<div class=\"wide\"><table class=\"sorted\"><thead><tr>\n"));
        for (column, name) in table.columns.iter().enumerate() {
            self.put(format_args!("<th scope=\"col\"{}>{}</th>\n", class(column), escape(name)));
        }
        self.put(format_args!("</tr></thead><tbody>\n"));
        for row in &table.rows {
            self.put(format_args!("<tr>"));
            for (column, cell) in row.iter().enumerate() {
                let value = cell.value.map_or(String::new(), |value| format!(" data-value=\"{value}\""));
                self.put(format_args!("<td{}{value}>{}</td>", class(column), escape(&cell.text)));
            }
            self.put(format_args!("</tr>\n"));
        }
        self.put(format_args!("</tbody></table></div>\n"));
    }

    /// Adds a figure. Its points and cells show their values under the pointer.
    pub fn figure(&mut self, figure: &Svg) {
        self.put(format_args!("<figure>\n{}</figure>\n", figure.as_str()));
    }

    /// Adds an MP4 and a caption. `poster` is a PNG that stands for the clip until it plays.
    pub fn video(&mut self, mp4: &[u8], poster: Option<&[u8]>, caption: &str) {
        let poster = poster.map_or(String::new(), |png| format!(" poster=\"{}\"", data_url("image/png", png)));
        let (source, caption) = (data_url("video/mp4", mp4), escape(caption));
        self.put(format_args!(
            "<figure><video controls=\"\" loop=\"\" muted=\"\" playsinline=\"\" aria-label=\"{caption}\"{poster} \
             src=\"{source}\"></video>\n<figcaption>{caption}</figcaption></figure>\n"
        ));
    }

    /// The whole document.
    pub fn finish(self) -> String {
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n<meta charset=\"utf-8\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\"/>\n<title>{}</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{}</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
            escape(&self.title),
            self.body
        )
    }

    fn put(&mut self, html: std::fmt::Arguments) {
        // Writing to a String cannot fail.
        let _ = self.body.write_fmt(html);
    }
}

fn data_url(kind: &str, bytes: &[u8]) -> String {
    format!("data:{kind};base64,{}", STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::figure::{Plot, Series};

    const HOSTILE: &str = "</title><script>alert(1)</script>\" onload=\"x & 'y' \u{0}\u{1b}[31m=1+1";

    fn page() -> String {
        let mut page = Page::new(HOSTILE, HOSTILE);
        page.heading(HOSTILE);
        page.paragraph(HOSTILE);
        page.warning(HOSTILE);
        page.facts(&[(HOSTILE, HOSTILE.into())]);
        page.table(&Table {
            columns: vec![HOSTILE.into(), "PSNR".into()],
            rows: vec![vec![TableCell::text(HOSTILE), TableCell::number("61.5 ± 2.0", 61.5)]],
        });
        let series = Series { name: HOSTILE.into(), points: vec![(2.0, 61.5)], ..Series::default() };
        page.figure(&Plot { title: HOSTILE.into(), series: vec![series], ..Plot::default() }.svg());
        page.video(b"not a video", Some(b"not a picture"), HOSTILE);
        page.finish()
    }

    #[test]
    fn a_page_is_well_formed_and_runs_no_script_of_its_texts() {
        let text = page();
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
        let document = roxmltree::Document::parse_with_options(&text, options).unwrap();
        let all = |name: &'static str| document.descendants().filter(move |node| node.tag_name().name() == name);
        assert_eq!(all("script").count(), 1, "only the page's own");
        assert!(document.descendants().all(|node| node.attributes().all(|a| !a.name().starts_with("on"))));
        let video = all("video").next().unwrap();
        assert_eq!(video.attribute("src"), Some("data:video/mp4;base64,bm90IGEgdmlkZW8="));
        let cell = all("td").find(|cell| cell.attribute("data-value") == Some("61.5")).unwrap();
        assert_eq!((cell.text(), cell.attribute("class")), (Some("61.5 ± 2.0"), Some("number")));
    }

    /// A page that loads something names it in an attribute or in its style.
    #[test]
    fn a_page_loads_nothing() {
        let text = page();
        let document = roxmltree::Document::parse_with_options(
            &text,
            roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() },
        );
        for node in document.unwrap().descendants() {
            for attribute in node.attributes().filter(|a| ["src", "href", "poster", "data"].contains(&a.name())) {
                assert!(attribute.value().starts_with("data:"), "{}", attribute.value());
            }
        }
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import") && text.contains(POLICY));
    }
}
