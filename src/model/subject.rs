//! The words of a prompt that name its subject, for the foreground mask made from cross-attention.

use std::ops::Range;

/// The bytes of the subject in a prompt: what stands between an article and the first verb in -ing
/// ("a *red car* driving right"), or, without one, between the first article and the next
/// preposition or comma ("a *cat* on grass"). A rule of thumb for captions in English; `None` where
/// it does not apply.
pub fn subject_of(prompt: &str) -> Option<Range<usize>> {
    let words = words(prompt);
    let is = |index: usize, list: &[&str]| list.contains(&prompt[words[index].clone()].to_lowercase().as_str());
    let verb = (1..words.len()).find(|index| {
        let word = &prompt[words[*index].clone()];
        let verb = word.len() > 4 && word.to_lowercase().ends_with("ing");
        let noun = is(*index, NOUNS) && (0..*index).any(|before| is(before, PREPOSITIONS));
        verb && !noun && !is(index - 1, ARTICLES) && !comma_before(prompt, &words, *index)
    });
    let start = match verb {
        Some(verb) => (0..verb).rev().find(|index| is(*index, ARTICLES)).map_or(0, |article| article + 1),
        None => (0..words.len()).find(|index| is(*index, ARTICLES))? + 1,
    };
    let ends = |index: &usize| Some(*index) == verb || is(*index, PREPOSITIONS) || comma_before(prompt, &words, *index);
    let end = (start + 1..words.len()).find(ends).unwrap_or(words.len());
    let (first, last) = (words.get(start)?, words.get(end.checked_sub(1)?)?);
    (first.start < last.end).then_some(first.start..last.end)
}

const ARTICLES: &[&str] = &["a", "an", "the", "one", "two", "three", "some"];
/// Words in -ing that are no verbs where a preposition stands before them ("in the evening", "past
/// a building").
const NOUNS: &[&str] = &[
    "morning",
    "evening",
    "building",
    "painting",
    "drawing",
    "ceiling",
    "lightning",
    "clothing",
    "wedding",
    "string",
    "spring",
    "crossing",
    "landing",
    "opening",
    "meeting",
    "railing",
    "awning",
];
const PREPOSITIONS: &[&str] = &[
    "in", "on", "at", "over", "under", "near", "among", "by", "with", "into", "through", "across", "behind", "before",
    "above", "below", "of", "and", "to", "from", "past", "around", "along", "onto", "towards",
];

fn words(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut open = None;
    for (at, character) in text.char_indices().chain([(text.len(), ' ')]) {
        match (open, character.is_alphanumeric()) {
            (None, true) => open = Some(at),
            (Some(start), false) => {
                found.push(start..at);
                open = None;
            }
            _ => {}
        }
    }
    found
}

fn comma_before(text: &str, words: &[Range<usize>], index: usize) -> bool {
    index > 0 && text[words[index - 1].end..words[index].start].contains([',', '.', ';'])
}

#[cfg(test)]
mod tests {
    use super::subject_of;

    #[test]
    fn subjects_of_captions() {
        for (prompt, subject) in [
            ("a cat walking on grass", Some("cat")),
            ("a red car driving right over the desert", Some("red car")),
            ("on the grass, a spotted dog walking left", Some("spotted dog")),
            ("a video of an orange cat moving up at sunset", Some("orange cat")),
            ("a balloon in the clouds, spinning", Some("balloon")),
            ("A rocket at night", Some("rocket")),
            ("cats running", Some("cats")),
            ("a cat sits on grass in the early morning", Some("cat sits")),
            ("a car drives past a tall building", Some("car drives")),
            ("a dog crossing a road", Some("dog")),
            ("a panda, in the style of an oil painting", Some("panda")),
            ("", None),
            ("sunset", None),
            ("一只猫", None),
            ("the", None),
            ("walking", None),
        ] {
            assert_eq!(subject_of(prompt).map(|range| &prompt[range]), subject, "{prompt}");
        }
    }
}
