//! Repairs mojibake: UTF-8 that was read as a single-byte code page ("cafÃ©" for "café").
//!
//! ftfy decides by a table of unlikely neighbours. This module decides by the structure of UTF-8.
//! Characters that stand for a lead byte and the right number of continuation bytes are rare in
//! real text. A pair that could also be a word and its punctuation ("É…") is kept.

use std::sync::LazyLock;

use encoding_rs::{
    Encoding, ISO_8859_2, MACINTOSH, WINDOWS_1250, WINDOWS_1251, WINDOWS_1252, WINDOWS_1253, WINDOWS_1254, WINDOWS_1257,
};

/// By far the most frequent code page of mojibake. It is tried first, and only this code page is
/// repaired within a part of a line.
static WINDOWS: LazyLock<CodePage> = LazyLock::new(|| CodePage::new(WINDOWS_1252));

/// Code pages that are repaired only if the whole line makes sense.
static OTHERS: LazyLock<Vec<CodePage>> = LazyLock::new(|| {
    let encodings = [WINDOWS_1251, WINDOWS_1250, WINDOWS_1253, WINDOWS_1254, WINDOWS_1257, ISO_8859_2, MACINTOSH];
    encodings.into_iter().map(CodePage::new).collect()
});

/// Characters that may follow a capital letter in real text although their bytes are continuation
/// bytes.
const CLOSING: &str = "’‘”“…™›‹–—•»«©®°º·´\u{a0}¡¿€£¥¢§¹²³ª";

/// Removes one layer of mojibake from `line`. `None` if the line looks right.
pub(super) fn fix_encoding(line: &str) -> Option<String> {
    if line.is_ascii() {
        return None;
    }
    fix_windows_1252(line).or_else(|| OTHERS.iter().find_map(|page| fix_whole_line(line, page)))
}

fn fix_windows_1252(line: &str) -> Option<String> {
    let scan = Scan::new(line, &WINDOWS);
    let certain = scan.sequences.iter().any(|sequence| sequence.certain);
    // If the whole line decodes and a part of it is certain, the doubtful sequences are mojibake
    // too.
    let all = scan.strays == 0;
    certain.then(|| scan.decode(line, |sequence| all || sequence.certain))
}

fn fix_whole_line(line: &str, page: &CodePage) -> Option<String> {
    let scan = Scan::new(line, page);
    let convincing = scan.sequences.iter().any(|sequence| sequence.in_run || is_punctuation(&sequence.decoded));
    (convincing && scan.strays == 0).then(|| scan.decode(line, |_| true))
}

/// Whether all characters are quotes, dashes or dots (Unicode's block General Punctuation).
fn is_punctuation(text: &str) -> bool {
    text.chars().all(|c| ('\u{2000}'..='\u{206f}').contains(&c))
}

/// A sequence of characters that together stand for the UTF-8 bytes of one character.
struct Sequence {
    /// Start in the line, in bytes.
    start: usize,
    /// End in the line, in bytes.
    end: usize,
    /// The character that the sequence stands for.
    decoded: String,
    /// Whether another sequence touches this one.
    in_run: bool,
    /// Whether the sequence ends in an opening quote, which does not occur within words of real
    /// text.
    opens: bool,
    /// Whether real text is unlikely to contain the sequence.
    certain: bool,
}

struct Scan {
    sequences: Vec<Sequence>,
    /// The number of characters beyond ASCII that belong to no sequence.
    strays: usize,
}

impl Scan {
    fn new(line: &str, page: &CodePage) -> Self {
        let chars: Vec<(usize, char)> = line.char_indices().collect();
        let mut scan = Self { sequences: Vec::new(), strays: 0 };
        let mut rest = chars.as_slice();
        while let Some((&(_, c), after)) = rest.split_first() {
            if let Some(mut sequence) = page.sequence(rest) {
                // The sequence has one character for each byte of the decoded character.
                rest = rest.get(sequence.decoded.len()..).unwrap_or_default();
                sequence.certain |= rest.first().is_some_and(|&(_, next)| sequence.opens && next.is_alphabetic());
                scan.push(sequence);
            } else {
                scan.strays += usize::from(!c.is_ascii());
                rest = after;
            }
        }
        scan
    }

    fn push(&mut self, mut sequence: Sequence) {
        if let Some(last) = self.sequences.last_mut().filter(|last| last.end == sequence.start) {
            for neighbour in [last, &mut sequence] {
                neighbour.in_run = true;
                neighbour.certain = true;
            }
        }
        self.sequences.push(sequence);
    }

    fn decode(&self, line: &str, chosen: impl Fn(&Sequence) -> bool) -> String {
        let mut fixed = String::with_capacity(line.len());
        let mut rest = 0;
        for sequence in self.sequences.iter().filter(|sequence| chosen(sequence)) {
            fixed.push_str(&line[rest..sequence.start]);
            fixed.push_str(&sequence.decoded);
            rest = sequence.end;
        }
        fixed.push_str(&line[rest..]);
        fixed
    }
}

/// The upper half of a single-byte code page. Latin-1 needs no code page of its own, because it
/// equals Windows-1252 once its control characters are read as Windows-1252.
struct CodePage {
    upper: Vec<char>,
}

impl CodePage {
    fn new(encoding: &'static Encoding) -> Self {
        let decode = |byte: u8| encoding.decode_without_bom_handling(&[byte]).0.chars().next();
        let upper = (0x80..=0xff).map(|byte| decode(byte).unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        Self { upper }
    }

    /// The byte that the code page reads as `c`. `None` for ASCII and for characters that the code
    /// page lacks.
    fn byte(&self, c: char) -> Option<u8> {
        match u8::try_from(c) {
            Ok(byte) if byte < 0x80 => None,
            _ if c == char::REPLACEMENT_CHARACTER => None,
            _ => self.upper.iter().position(|&upper| upper == c).and_then(|i| u8::try_from(i + 0x80).ok()),
        }
    }

    /// The sequence at the start of `chars`, if it stands for one character in UTF-8.
    fn sequence(&self, chars: &[(usize, char)]) -> Option<Sequence> {
        let &(start, lead) = chars.first()?;
        let length = match self.byte(lead)? {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => return None,
        };
        let chars = chars.get(..length)?;
        let bytes: Option<Vec<u8>> = chars.iter().map(|&(_, c)| self.byte(c)).collect();
        let decoded = String::from_utf8(bytes?).ok()?;
        let &(last, c) = chars.last()?;
        let &(_, second) = chars.get(1)?;
        // "Â" and "Ã" before a symbol, and "â€", are typical of mojibake and do not occur in real
        // text.
        let certain = matches!(lead, 'Â' | 'Ã') || (lead == 'â' && second == '€') || !CLOSING.contains(second);
        Some(Sequence {
            start,
            end: last + c.len_utf8(),
            decoded,
            in_run: false,
            opens: matches!(c, '“' | '‘'),
            certain,
        })
    }
}
