//! Cleans prompts like diffusers' `WanPipeline` before tokenising.
//!
//! diffusers calls `ftfy.fix_text`, calls `html.unescape` twice, and replaces every run of white
//! space by one space. This module follows the steps of ftfy 6.3 with default settings exactly,
//! except for mojibake (see [`fix_encoding`]). `tests/tokenizer.rs` lists the differences.

use std::borrow::Cow;

use htmlize::{ENTITIES, ENTITY_MAX_LENGTH};
use unicode_normalization::UnicodeNormalization;

use super::mojibake::fix_encoding;

/// Limit on the rounds of ftfy's steps, which are repeated until nothing changes. A prompt with
/// nested entities could need any number of rounds.
const MAX_ROUNDS: usize = 100;

/// The longest entity name that ftfy accepts.
const MAX_STRICT_NAME: usize = 24;
/// The longest entity, with `&`, `#` and `;`.
const MAX_STRICT_LENGTH: usize = MAX_STRICT_NAME + 3;

/// Cleans `prompt` for the tokenizer, like diffusers' `prompt_clean`. The function repairs
/// mojibake, replaces HTML entities, curly quotes, ligatures and full-width forms by plain
/// characters, removes control characters, composes characters (NFC), and reduces runs of white
/// space to one space, with none at the ends.
pub fn prompt_clean(prompt: &str) -> String {
    let text = unescape(&unescape(&fix_text(prompt)));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// ftfy's `fix_text`, which works line by line. From the first line with a `<` on, entities are
/// kept.
fn fix_text(text: &str) -> String {
    let mut entities = true;
    let fix = |line: &str| {
        entities &= !line.contains('<');
        fix_line(line, entities)
    };
    text.split_inclusive('\n').map(fix).collect()
}

fn fix_line(line: &str, entities: bool) -> String {
    let mut text = line.to_owned();
    for _ in 0..MAX_ROUNDS {
        let before = text.clone();
        if entities {
            text = unescape_strictly(&text);
        }
        while let Some(fixed) = fix_encoding(&text) {
            text = fixed;
        }
        text = remove_terminal_escapes(&plain_characters(&text));
        text.retain(|c| !is_control(c));
        text = text.nfc().collect();
        if text == before {
            break;
        }
    }
    text
}

/// Replaces ligatures, half- and full-width forms, curly quotes, line breaks, and C1 control
/// characters by plain characters.
fn plain_characters(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{80}'..='\u{9f}' => plain.push(windows_1252(c)),
            '\u{3000}' => plain.push(' '),
            '\u{ff01}'..='\u{ffef}' => plain.extend(std::iter::once(c).nfkc()),
            '\u{2bc}' | '\u{2018}'..='\u{201b}' => plain.push('\''),
            '\u{201c}'..='\u{201f}' => plain.push('"'),
            '\r' | '\u{2028}' | '\u{2029}' => plain.push('\n'),
            'ﬅ' => plain.push_str("ſt"),
            // Digraphs that exist only for old encodings, and typographic ligatures.
            'Ĳ' | 'ĳ' | 'ŉ' | 'Ǆ'..='ǌ' | 'Ǳ'..='ǳ' | 'ﬀ'..='ﬆ' => plain.extend(std::iter::once(c).nfkc()),
            _ => plain.push(c),
        }
    }
    plain
}

/// The Windows-1252 character with the code of a C1 control character.
fn windows_1252(c: char) -> char {
    let byte = u8::try_from(c).unwrap_or(b'?');
    encoding_rs::WINDOWS_1252.decode_without_bom_handling(&[byte]).0.chars().next().unwrap_or(c)
}

/// Whether `c` is a control character that has no meaning in text. White space, joiners and
/// direction marks have a meaning.
fn is_control(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}')
}

/// Removes colour codes of terminals, which consist of ESC, `[`, digits and semicolons, and a
/// letter.
fn remove_terminal_escapes(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        let (before, escape) = rest.split_at(at);
        kept.push_str(before);
        let tail = escape[2..].trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        rest = match tail.chars().next() {
            Some(letter) if letter.is_ascii_alphabetic() => &tail[1..],
            _ => {
                kept.push_str("\u{1b}[");
                &escape[2..]
            }
        };
    }
    kept + rest
}

/// Replaces each `&...` for which `entity` returns an expansion. `entity` gets the text from `&` on
/// and returns the expansion and the number of bytes that it replaces.
fn replace_entities(text: &str, entity: impl Fn(&str) -> Option<(Cow<'static, str>, usize)>) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        let (before, from) = rest.split_at(at);
        replaced.push_str(before);
        let (expansion, length) = entity(from).unwrap_or((Cow::Borrowed("&"), 1));
        replaced.push_str(&expansion);
        rest = &from[length..];
    }
    replaced + rest
}

/// ftfy's cautious unescaping. An entity must end in a semicolon, and its letters may all be
/// capitals (`&EACUTE;`).
fn unescape_strictly(text: &str) -> String {
    replace_entities(text, |text| {
        let end = text.bytes().take(MAX_STRICT_LENGTH).position(|byte| byte == b';')?;
        let body = text[1..end].strip_prefix('#').unwrap_or(&text[1..end]);
        if !(1..=MAX_STRICT_NAME).contains(&body.len()) || !body.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return None;
        }
        let entity = &text[..=end];
        let expansion = match numeric(entity) {
            Some((expansion, length)) => (length == entity.len() && expansion != ";").then_some(expansion),
            None => named(entity).map(Cow::Borrowed).or_else(|| in_capitals(entity)),
        };
        expansion.map(|expansion| (expansion, entity.len()))
    })
}

/// The expansion, in capitals, of an entity in capitals that exists only in small letters.
fn in_capitals(entity: &str) -> Option<Cow<'static, str>> {
    let capitals = entity == entity.to_ascii_uppercase() && longest_named(entity).is_none();
    let small = capitals.then(|| named(&entity.to_ascii_lowercase())).flatten()?;
    Some(Cow::Owned(small.to_uppercase()))
}

/// Python's `html.unescape`, which follows HTML 5. The semicolon is optional for old names.
fn unescape(text: &str) -> String {
    replace_entities(text, |text| {
        numeric(text).or_else(|| longest_named(text).map(|(expansion, length)| (Cow::Borrowed(expansion), length)))
    })
}

/// The longest named entity at the start of `text`, and its length.
fn longest_named(text: &str) -> Option<(&'static str, usize)> {
    let longest = text.len().min(ENTITY_MAX_LENGTH);
    (2..=longest).rev().find_map(|length| Some((named(text.get(..length)?)?, length)))
}

/// The expansion of exactly this entity, which includes `&` and any semicolon.
fn named(entity: &str) -> Option<&'static str> {
    ENTITIES.get(entity.as_bytes()).and_then(|expansion| std::str::from_utf8(expansion).ok())
}

/// The numeric character reference (`&#65;`, `&#x41`) at the start of `text`, and its length.
fn numeric(text: &str) -> Option<(Cow<'static, str>, usize)> {
    let body = text.strip_prefix("&#")?;
    let (digits, radix) = match body.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16),
        None => (body, 10),
    };
    let after = digits.trim_start_matches(|c: char| c.is_digit(radix));
    let digits = &digits[..digits.len() - after.len()];
    let after = after.strip_prefix(';').unwrap_or(after);
    let code = digits
        .chars()
        .filter_map(|c| c.to_digit(radix))
        .fold(0_u32, |code, digit| code.saturating_mul(radix).saturating_add(digit));
    (!digits.is_empty()).then(|| (character(code), text.len() - after.len()))
}

/// The character of a numeric reference. Impossible codes give HTML's replacements, forbidden codes
/// give nothing.
fn character(code: u32) -> Cow<'static, str> {
    let c = match code {
        0 => Some(char::REPLACEMENT_CHARACTER),
        1..=8 | 0xb | 0xe..=0x1f | 0x7f | 0xfdd0..=0xfdef => None,
        _ if code <= 0x10_ffff && code & 0xfffe == 0xfffe => None,
        0x80..=0x9f => char::from_u32(code).map(windows_1252),
        _ => Some(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)),
    };
    c.map_or(Cow::Borrowed(""), |c| Cow::Owned(c.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_left_alone() {
        for prompt in ["", "a cat walking on grass", "一只猫在草地上行走", "É", "naïve façade", "IL Y MARQUÉ…", "🐱"]
        {
            assert_eq!(prompt_clean(prompt), prompt);
        }
    }

    #[test]
    fn each_step_is_done() {
        let cases = [
            ("  a \t\u{a0}cat\r\n\u{2028}on\u{3000}grass ", "a cat on grass"),
            ("“it’s”", "\"it's\""),
            ("schÃ¶n, itâ€™s", "schön, it's"),
            ("ＬＯＵＤ ﬁne", "LOUD fine"),
            ("a\0b\u{7f}\u{feff}c", "abc"),
            ("\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("e\u{301}", "é"),
            ("&amp;amp; &EACUTE; &#8217; &notit;", "& É ' ¬it;"),
            ("<b>&rsquo;</b>", "<b>’</b>"),
        ];
        for (prompt, clean) in cases {
            assert_eq!(prompt_clean(prompt), clean);
        }
    }

    #[test]
    fn hostile_nesting_ends() {
        let nested = format!("&{}lt;", "amp;".repeat(5_000));
        assert!(prompt_clean(&nested).len() < nested.len());
        for piece in ["&", "&#", "\u{1b}[", "Ã", "ðŸ", "&#x", "\u{fb03}\u{301}"] {
            prompt_clean(&piece.repeat(5_000));
        }
    }
}
