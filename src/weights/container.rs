//! What kind of file this is, told by its first bytes and not by its name.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Container {
    /// A safetensors file.
    Safetensors,
    /// A zip archive, which is what torch writes since version 1.6.
    Zip,
    /// A GGUF file.
    Gguf,
    /// A pickle without an archive around it: torch before version 1.6, or another program.
    Pickle,
    /// The stand-in for a file that Git LFS has not fetched.
    LfsPointer,
    /// A web page, mostly an error page in place of a download.
    Html,
    /// JSON: a configuration, an index, or an error message in place of a download.
    Json,
    /// An archive that must be unpacked first.
    Archive,
    /// A file without contents.
    Empty,
    /// Nothing of these.
    Unknown,
}

/// The largest header that the safetensors format allows, in bytes.
pub(super) const LONGEST_HEADER: u64 = 100_000_000;

impl Container {
    /// Bytes at the start of a file that [`Container::of`] looks at.
    pub const HEAD: usize = 64;

    /// The kind of the file that begins with `head`.
    pub fn of(head: &[u8]) -> Self {
        let text = head.trim_ascii_start();
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let tag = |name: &[u8]| text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        match head {
            [] => Self::Empty,
            _ if head.starts_with(b"version https://git-lfs") => Self::LfsPointer,
            _ if head.starts_with(b"GGUF") => Self::Gguf,
            _ if head.starts_with(b"PK\x03\x04") => Self::Zip,
            _ if is_safetensors(head) => Self::Safetensors,
            [0x80, 2..=5, ..] => Self::Pickle,
            [0x1f, 0x8b, ..] | [b'7', b'z', 0xbc, 0xaf, ..] | [b'R', b'a', b'r', b'!', ..] => Self::Archive,
            _ if tag(b"<!doctype") || tag(b"<html") || tag(b"<?xml") || tag(b"<head") => Self::Html,
            _ if text.starts_with(b"{") || text.starts_with(b"[") => Self::Json,
            _ => Self::Unknown,
        }
    }

    /// The kind of the file at `path`. [`Container::Unknown`] if it cannot be read.
    pub fn of_file(path: &Path) -> Self {
        // Opening a named pipe would wait for a writer.
        if !path.is_file() {
            return Self::Unknown;
        }
        let mut head = Vec::with_capacity(Self::HEAD);
        match File::open(path).and_then(|file| file.take(Self::HEAD as u64).read_to_end(&mut head)) {
            Ok(_) => Self::of(&head),
            Err(_) => Self::Unknown,
        }
    }

    /// For a file that cannot hold weights: what it is, and what to do. `None` for the formats that
    /// this program reads, and for files of unknown kinds.
    pub fn advice(self) -> Option<&'static str> {
        Some(match self {
            Self::LfsPointer => "this is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`",
            Self::Html => {
                "this is a web page, not the file itself; log in or accept the licence, and download it again"
            }
            Self::Json => "this is JSON, perhaps an error message, and holds no weights; download it again",
            Self::Pickle => {
                "this is a bare pickle, not the zip format of torch 1.6 and later; load it with torch and save it again"
            }
            Self::Archive => "this is a packed archive; unpack it first",
            Self::Empty => "it is empty; download it again",
            Self::Safetensors | Self::Zip | Self::Gguf | Self::Unknown => return None,
        })
    }
}

/// A length that the format allows, and then the start of a JSON object.
fn is_safetensors(head: &[u8]) -> bool {
    let Some((length, rest)) = head.split_first_chunk::<8>() else { return false };
    (2..=LONGEST_HEADER).contains(&u64::from_le_bytes(*length)) && rest.first() == Some(&b'{')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_decide() {
        for (head, expected) in [
            (&b"\x10\0\0\0\0\0\0\0{\"a\":1}"[..], Container::Safetensors),
            (b"PK\x03\x04....", Container::Zip),
            (b"GGUF\x03\0\0\0", Container::Gguf),
            (b"\x80\x02}q\0.", Container::Pickle),
            (b"\x80\x05\x95", Container::Pickle),
            (b"version https://git-lfs.github.com/spec/v1\n", Container::LfsPointer),
            (b"\n <!DOCTYPE html><html>", Container::Html),
            (b"<HTML>", Container::Html),
            (b"{\"error\": \"Repository not found\"}", Container::Json),
            (b"\xef\xbb\xbf[1]", Container::Json),
            (b"\x1f\x8b\x08", Container::Archive),
            (b"", Container::Empty),
            (b"abc", Container::Unknown),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff{", Container::Unknown),
        ] {
            assert_eq!(Container::of(head), expected, "{head:?}");
        }
    }
}
