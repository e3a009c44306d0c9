//! Texts of users in files for other programs.

/// Escapes a text so that it cannot end its element or its attribute in XML and HTML. Control
/// characters, which XML forbids, become spaces.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A text as a quoted cell of CSV. Spreadsheets run a cell that begins like a formula, so such a
/// text gets an apostrophe in front.
pub fn csv_cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    format!("\"{}{}\"", if formula { "'" } else { "" }, text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_never_formulas() {
        assert_eq!(csv_cell("a \"red\" cat, left\nright"), "\"a \"\"red\"\" cat, left\nright\"");
        for formula in ["=1+1", "+1", "-cmd|' /C calc'!A0", "@SUM(A1)", "\t=1"] {
            assert_eq!(csv_cell(formula), format!("\"'{formula}\""));
        }
    }
}
