//! Parts of a comparison that run on different machines.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use super::{Case, Row};

/// The `index`-th of `count` parts, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// Number of this part, from 1.
    pub fn index(self) -> usize {
        self.index
    }

    /// Number of all parts.
    pub fn count(self) -> usize {
        self.count
    }

    /// Whether the case at this index of the list of all cases belongs to the part. The sizes of
    /// parts differ by at most one case.
    fn has(self, place: usize) -> bool {
        place % self.count == self.index - 1
    }
}

impl FromStr for Shard {
    type Err = String;

    /// Parses a text such as `3/16`.
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        match numbers {
            Some((index, count)) if (1..=count).contains(&index) => Ok(Self { index, count }),
            _ => Err(format!("\"{text}\" is no part of a whole: write 3/16 for the third of 16 parts")),
        }
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}

impl TryFrom<String> for Shard {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A part of a comparison, and the whole that it belongs to.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Part {
    /// The part.
    pub shard: Shard,
    /// All prompts of the comparison.
    pub prompts: Vec<String>,
    /// Seeds of each prompt: 0 to `seeds` - 1.
    pub seeds: u64,
}

/// The prompts and seeds of a comparison with these rows, or of a part of it. Each occurs once.
///
/// Prompts with rows come first, so a prompt keeps its number when a comparison is resumed with
/// other prompts. In a part, the numbers are those of the whole list and do not depend on rows.
pub(super) fn cases(prompts: &[String], seeds: u64, rows: &[Row], part: Option<&Part>) -> Vec<Case> {
    let known = rows.iter().map(|row| row.prompt.as_str()).filter(|_| part.is_none());
    let numbers = numbers(known.chain(prompts.iter().map(String::as_str)));
    let (mut cases, mut listed) = (Vec::new(), BTreeSet::new());
    for prompt in prompts {
        let number = numbers[prompt.as_str()];
        if listed.insert(number) {
            cases.extend((0..seeds).map(|seed| Case { number, prompt: prompt.clone(), seed }));
        }
    }
    let of_part = |place: usize| part.is_none_or(|part| part.shard.has(place));
    cases.into_iter().enumerate().filter(|(place, _)| of_part(*place)).map(|(_, case)| case).collect()
}

/// Numbers the prompts from 0 in the order of their first occurrence.
pub(super) fn numbers<'a>(prompts: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut numbers = BTreeMap::new();
    for prompt in prompts {
        let next = numbers.len();
        numbers.entry(prompt).or_insert(next);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::compare::report::tests::row;

    fn prompts(list: &str) -> Vec<String> {
        list.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn shards_are_read_as_they_are_written() {
        let shard: Shard = "3/16".parse().unwrap();
        assert_eq!((shard.index(), shard.count(), shard.to_string().as_str()), (3, 16, "3/16"));
        let json = serde_json::to_string(&shard).unwrap();
        assert_eq!((json.as_str(), serde_json::from_str::<Shard>(&json).unwrap()), ("\"3/16\"", shard));
        for wrong in ["", "3", "0/4", "5/4", "a/4", "1/0", "-1/4", "1/2/3"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    /// Every case is in exactly one part and has its number of the whole list.
    #[test]
    fn parts_make_the_whole() {
        let (prompts, seeds) = (prompts("a b c a d e"), 3);
        let whole = cases(&prompts, seeds, &[], None);
        assert_eq!(whole.len(), 5 * 3, "a prompt that is named twice is run once");
        for count in [1, 2, 4, 16, 20] {
            let mut parts = Vec::new();
            for index in 1..=count {
                let part = Part { shard: Shard { index, count }, prompts: prompts.clone(), seeds };
                let own = cases(&prompts, seeds, &[], Some(&part));
                assert!((own.len() as f64 - 15.0 / count as f64).abs() < 1.0);
                parts.extend(own);
            }
            parts.sort_by_key(|case| (case.number, case.seed));
            assert_eq!(parts, whole);
        }
    }

    #[test]
    fn prompts_that_have_rows_keep_their_numbers() {
        let rows = [row("off again", None, "b", 0), row("off again", None, "x", 0)];
        let numbers: Vec<_> =
            cases(&prompts("a b c"), 1, &rows, None).into_iter().map(|case| (case.prompt, case.number)).collect();
        assert_eq!(numbers, [("a".into(), 2), ("b".into(), 0), ("c".into(), 3)]);
        let part = Part { shard: Shard { index: 1, count: 1 }, prompts: prompts("a b c"), seeds: 1 };
        let of_part = cases(&part.prompts, 1, &rows, Some(&part));
        assert_eq!(of_part.iter().map(|case| case.number).collect::<Vec<_>>(), [0, 1, 2]);
    }
}
