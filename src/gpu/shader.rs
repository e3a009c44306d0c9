//! The shader resolver: composes the parts of `shaders/*.wgsl`, for the program and for the tests.
//!
//! Every directive is on a line of its own:
//! - `#import NAME` inserts `shaders/lib/NAME.wgsl` once; a definition may be a part of NAME, as in
//!   `#import weight_$FORMAT`;
//! - `#ifdef FLAG`, `#ifndef FLAG`, `#else`, `#endif` keep or drop lines;
//! - `#unless A B`, `#else`, `#endif` keep lines unless both words are equal, as in
//!   `#unless INDEX 0` inside a `#repeat`;
//! - `#repeat INDEX COUNT`, `#end` repeat the lines between them COUNT times, with INDEX replaced
//!   by 0, 1, ... Some loops must be unrolled in the text, because `subgroupBroadcast` takes
//!   constant lanes only.
//!
//! A definition is an ALL_CAPS word with a value, which replaces every such whole word. `$NAME`
//! pastes the value into a longer word: `x_$I` becomes `x_3`.

use std::collections::{BTreeMap, BTreeSet};

/// Definitions of one permutation: flag or constant to its text.
pub type Defines = BTreeMap<String, String>;

/// Declares the embedded sources.
macro_rules! sources {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../shaders/", $name, ".wgsl")))),*]
    };
}

/// Every shader file, by its path below `shaders/` without the ending. A test compares this list
/// with the folder.
pub const SOURCES: &[(&str, &str)] = sources![
    "activate",
    "add_rows",
    "attention_paid",
    "attention_subgroup",
    "attention_tile",
    "change",
    "channel_norm",
    "combine",
    "lib/activation",
    "lib/attention",
    "lib/linear_index",
    "lib/packed",
    "lib/packed_scale",
    "lib/product_input",
    "lib/product_store",
    "lib/query_key_subgroup",
    "lib/query_key_tile",
    "lib/received",
    "lib/tile_product",
    "lib/weight_bf16",
    "lib/weight_f16",
    "lib/weight_f32",
    "lib/weight_f8_e4m3",
    "lib/weight_f8_e5m2",
    "lib/weight_i8",
    "lib/weight_q2_k",
    "lib/weight_q3_k",
    "lib/weight_q4_0",
    "lib/weight_q4_1",
    "lib/weight_q4_k",
    "lib/weight_q5_0",
    "lib/weight_q5_1",
    "lib/weight_q5_k",
    "lib/weight_q6_k",
    "lib/weight_q8_0",
    "matmul_rows",
    "matmul_subgroup",
    "matmul_tile",
    "norm",
    "peak_copy",
    "peak_fma",
    "received_subgroup",
    "received_tile",
    "row_softmax",
    "sample_rows",
    "split_heads",
    "sum_rows",
    "transpose",
];

/// The list of shipped permutations, see [`permutations`].
const PERMUTATIONS: &str = include_str!("../../shaders/permutations.toml");

/// Errors of composing a shader.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShaderError {
    /// No such file.
    #[error("there is no shader \"{0}\"")]
    Unknown(String),
    /// A directive does not parse, or has no end.
    #[error("shaders/{file}.wgsl:{line}: {message}")]
    Directive {
        /// File below `shaders/`, without ending.
        file: String,
        /// Line, from 1.
        line: usize,
        /// The reason.
        message: String,
    },
    /// The WGSL front end or the driver refuses the composed text.
    #[error("shader {kernel} does not compile: {message}")]
    Compile {
        /// The permutation.
        kernel: String,
        /// The compiler's message.
        message: String,
    },
    /// `permutations.toml` does not parse.
    #[error("shaders/permutations.toml does not parse: {0}")]
    Permutations(String),
}

/// A composed shader.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// WGSL text.
    pub source: String,
    /// For every line of `source`: file below `shaders/` and line number from 1.
    pub lines: Vec<(String, usize)>,
}

impl Resolved {
    /// The origin of line `line` (from 1) of the composed text, as `file.wgsl:line`.
    pub fn origin(&self, line: usize) -> String {
        match self.lines.get(line.wrapping_sub(1)) {
            Some((file, line)) => format!("shaders/{file}.wgsl:{line}"),
            None => format!("composed line {line}"),
        }
    }
}

/// Composes shader `name` under `defines`.
///
/// # Errors
/// There is no such shader, or a directive is wrong.
pub fn resolve(name: &str, defines: &Defines) -> Result<Resolved, ShaderError> {
    let mut resolver = Resolver { defines, imported: BTreeSet::new(), out: Resolved::default() };
    resolver.file(name)?;
    Ok(resolver.out)
}

/// The directives that `#endif` ends.
const CONDITIONS: [&str; 3] = ["#ifdef", "#ifndef", "#unless"];

struct Resolver<'a> {
    defines: &'a Defines,
    imported: BTreeSet<String>,
    out: Resolved,
}

/// A line of a file with its number.
type Line<'a> = (usize, &'a str);

impl Resolver<'_> {
    fn file(&mut self, name: &str) -> Result<(), ShaderError> {
        let (_, text) =
            SOURCES.iter().find(|(file, _)| *file == name).ok_or_else(|| ShaderError::Unknown(name.into()))?;
        let lines: Vec<Line> = text.lines().enumerate().map(|(i, line)| (i + 1, line)).collect();
        self.block(name, &lines)
    }

    fn emit(&mut self, line: &str, file: &str, number: usize) {
        self.out.source.push_str(&substitute(line, self.defines));
        self.out.source.push('\n');
        self.out.lines.push((file.into(), number));
    }

    fn block(&mut self, file: &str, lines: &[Line]) -> Result<(), ShaderError> {
        let mut rest = lines;
        while let Some((&(number, line), tail)) = rest.split_first() {
            rest = tail;
            let fail =
                |message: &str| ShaderError::Directive { file: file.into(), line: number, message: message.into() };
            let words: Vec<&str> = line.split_whitespace().collect();
            match *words.as_slice() {
                ["#import", name] => {
                    let path = format!("lib/{}", substitute(name, self.defines));
                    if self.imported.insert(path.clone()) {
                        self.file(&path)?;
                    }
                }
                ["#ifdef" | "#ifndef", flag] => {
                    let (body, after) = split_block(rest, &CONDITIONS, "#endif").ok_or_else(|| fail("no #endif"))?;
                    let (yes, no) = split_else(body);
                    let wanted = self.defines.contains_key(flag) == (words[0] == "#ifdef");
                    self.block(file, if wanted { yes } else { no })?;
                    rest = after;
                }
                ["#unless", a, b] => {
                    let (body, after) = split_block(rest, &CONDITIONS, "#endif").ok_or_else(|| fail("no #endif"))?;
                    let (yes, no) = split_else(body);
                    let equal = substitute(a, self.defines) == substitute(b, self.defines);
                    self.block(file, if equal { no } else { yes })?;
                    rest = after;
                }
                ["#repeat", index, count] => {
                    let (body, after) = split_block(rest, &["#repeat"], "#end").ok_or_else(|| fail("no #end"))?;
                    let count: usize =
                        substitute(count, self.defines).parse().map_err(|_| fail("the count is no number"))?;
                    for i in 0..count {
                        self.repeat(file, body, index, i)?;
                    }
                    rest = after;
                }
                [word, ..] if word.starts_with('#') => {
                    return Err(fail("unknown or incomplete directive"));
                }
                _ => self.emit(line, file, number),
            }
        }
        Ok(())
    }

    /// One turn of a `#repeat`. `index` is replaced by `i` in every line, directives included.
    fn repeat(&mut self, file: &str, body: &[Line], index: &str, i: usize) -> Result<(), ShaderError> {
        let index: Defines = [(index.to_owned(), i.to_string())].into();
        let texts: Vec<String> = body.iter().map(|(_, line)| substitute(line, &index)).collect();
        let lines: Vec<Line> = body.iter().zip(&texts).map(|((number, _), text)| (*number, text.as_str())).collect();
        self.block(file, &lines)
    }
}

/// Splits at the `close` that belongs to an opening line before these lines.
fn split_block<'a, 'b>(lines: &'b [Line<'a>], opens: &[&str], close: &str) -> Option<(&'b [Line<'a>], &'b [Line<'a>])> {
    let mut depth = 0;
    for (i, (_, line)) in lines.iter().enumerate() {
        let word = line.split_whitespace().next().unwrap_or("");
        if opens.contains(&word) {
            depth += 1;
        } else if word == close {
            if depth == 0 {
                return Some((&lines[..i], &lines[i + 1..]));
            }
            depth -= 1;
        }
    }
    None
}

/// Splits the body of a condition at its own `#else`.
fn split_else<'a, 'b>(body: &'b [Line<'a>]) -> (&'b [Line<'a>], &'b [Line<'a>]) {
    let mut depth = 0;
    for (i, (_, line)) in body.iter().enumerate() {
        match line.split_whitespace().next().unwrap_or("") {
            word if CONDITIONS.contains(&word) => depth += 1,
            "#endif" => depth -= 1,
            "#else" if depth == 0 => return (&body[..i], &body[i + 1..]),
            _ => {}
        }
    }
    (body, &[])
}

/// Replaces whole words that are defined with a value.
fn substitute(line: &str, defines: &Defines) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find(is_word) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c| !is_word(c)).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        match defines.get(word).filter(|value| !value.is_empty()) {
            Some(value) => {
                out.push_str(before.strip_suffix('$').unwrap_or(before));
                out.push_str(value);
            }
            None => {
                out.push_str(before);
                out.push_str(word);
            }
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// One shipped permutation of a shader.
#[derive(Clone, Debug)]
pub struct Permutation {
    /// Shader file.
    pub shader: String,
    /// Its definitions.
    pub defines: Defines,
    /// Needs subgroup operations.
    pub subgroups: bool,
}

impl Permutation {
    /// A readable unique name of lower-case letters, digits, `-` and `_`: a file name on every
    /// system.
    pub fn name(&self) -> String {
        let mut name = self.shader.clone();
        for (key, value) in &self.defines {
            name.push('-');
            let word = format!("{key}{value}").to_lowercase();
            name.extend(word.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_'));
        }
        name
    }
}

/// An optional feature of devices.
#[derive(PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Feature {
    Subgroups,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Family {
    /// Optional features that the permutations need.
    #[serde(default)]
    requires: Vec<Feature>,
    /// A permutation takes one choice from each axis. A choice is "" or definitions "FLAG" or
    /// "NAME=VALUE", separated by spaces.
    #[serde(default)]
    axes: Vec<Vec<String>>,
}

/// Every shipped permutation, from `shaders/permutations.toml`: the product of the axes of each
/// shader.
///
/// # Errors
/// The file does not parse.
pub fn permutations() -> Result<Vec<Permutation>, ShaderError> {
    let families: BTreeMap<String, Vec<Family>> =
        toml::from_str(PERMUTATIONS).map_err(|error| ShaderError::Permutations(error.to_string()))?;
    let mut all = Vec::new();
    for (shader, families) in &families {
        for family in families {
            let subgroups = family.requires.contains(&Feature::Subgroups);
            let permutation = |defines| Permutation { shader: shader.clone(), defines, subgroups };
            all.extend(product(&family.axes).into_iter().map(permutation));
        }
    }
    Ok(all)
}

fn product(axes: &[Vec<String>]) -> Vec<Defines> {
    let mut all = vec![Defines::new()];
    for axis in axes {
        let extend = |defines: &Defines, choice: &String| {
            let mut defines = defines.clone();
            for word in choice.split_whitespace() {
                let (key, value) = word.split_once('=').unwrap_or((word, ""));
                defines.insert(key.into(), value.into());
            }
            defines
        };
        all = all.iter().flat_map(|defines| axis.iter().map(move |choice| extend(defines, choice))).collect();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compose(text: &str, defines: &[(&str, &str)]) -> Result<String, ShaderError> {
        let defines = defines.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let mut resolver = Resolver { defines: &defines, imported: BTreeSet::new(), out: Resolved::default() };
        let lines: Vec<Line> = text.lines().enumerate().map(|(i, line)| (i + 1, line)).collect();
        resolver.block("test", &lines)?;
        Ok(resolver.out.source)
    }

    #[test]
    fn conditions_nest() {
        let text = "#ifdef A\na\n#ifndef B\nnot b\n#else\nb\n#endif\n#else\nnot a\n#endif\nend";
        assert_eq!(compose(text, &[("A", "")]).unwrap(), "a\nnot b\nend\n");
        assert_eq!(compose(text, &[("A", ""), ("B", "")]).unwrap(), "a\nb\nend\n");
        assert_eq!(compose(text, &[]).unwrap(), "not a\nend\n");
    }

    #[test]
    fn whole_words_are_substituted() {
        assert_eq!(compose("x[TM] + TMX + TM_", &[("TM", "4")]).unwrap(), "x[4] + TMX + TM_\n");
    }

    #[test]
    fn repeats_nest_and_count_by_definition() {
        let text = "#repeat I N\n#repeat J 2\na[I][J];\n#end\n#end";
        assert_eq!(compose(text, &[("N", "2")]).unwrap(), "a[0][0];\na[0][1];\na[1][0];\na[1][1];\n");
    }

    #[test]
    fn lines_of_one_turn_are_left_out() {
        let text = "#ifndef A\n#repeat I 3\n#unless I 0\nbetween\n#else\nfirst\n#endif\nturn I\n#end\n#endif";
        assert_eq!(compose(text, &[]).unwrap(), "first\nturn 0\nbetween\nturn 1\nbetween\nturn 2\n");
        assert_eq!(compose(text, &[("A", "")]).unwrap(), "");
    }

    #[test]
    fn unclosed_and_unknown_directives_name_their_line() {
        for text in ["ok\n#ifdef A", "ok\n#repeat I 3", "ok\n#wrong", "ok\n#repeat I x\n#end"] {
            let message = compose(text, &[]).unwrap_err().to_string();
            assert!(message.starts_with("shaders/test.wgsl:2:"), "{message}");
        }
    }

    #[test]
    fn names_of_permutations_are_unique_file_names() {
        let names: Vec<String> = permutations().unwrap().iter().map(Permutation::name).collect();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        assert!(names.iter().all(|name| name.len() < 120 && name.chars().all(plain)), "{names:?}");
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }

    #[test]
    fn every_shader_file_is_embedded() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
        let mut found = BTreeSet::new();
        for (folder, prefix) in [(root.clone(), ""), (root.join("lib"), "lib/")] {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|e| e == "wgsl") {
                    found.insert(format!("{prefix}{}", path.file_stem().unwrap().to_str().unwrap()));
                }
            }
        }
        assert_eq!(found, SOURCES.iter().map(|(name, _)| name.to_string()).collect());
    }
}
