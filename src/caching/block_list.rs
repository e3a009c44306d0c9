//! Lists of blocks as text: `0-5,9,12`.

use super::CacheError;

/// Reads numbers and ranges of blocks, in any order, of a model with `blocks` blocks. The result
/// ascends and names no block twice.
///
/// # Errors
/// [`CacheError::BlockList`] for a text that is no such list, or that names a missing block.
pub fn parse(list: &str, blocks: usize) -> Result<Vec<usize>, CacheError> {
    let fail = |reason: String| Err(CacheError::BlockList { list: list.chars().take(60).collect(), reason });
    let mut chosen = vec![false; blocks];
    for part in list.split(',').map(str::trim).filter(|_| !list.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.trim().parse::<usize>(), last.trim().parse::<usize>()) else {
            return fail(format!("\"{}\" is neither a number nor a range", part.chars().take(20).collect::<String>()));
        };
        if first > last {
            return fail(format!("the range {first}-{last} runs backwards"));
        }
        if last >= blocks {
            return fail(format!("there is no block {last}; the model has blocks 0-{}", blocks.saturating_sub(1)));
        }
        chosen[first..=last].fill(true);
    }
    Ok((0..blocks).filter(|block| chosen[*block]).collect())
}

/// Writes ascending blocks as [`parse`] reads them.
pub fn print(blocks: &[usize]) -> String {
    let runs = blocks.chunk_by(|a, b| a + 1 == *b).map(|run| match *run {
        [first, .., last] => format!("{first}-{last}"),
        [only] => only.to_string(),
        [] => String::new(),
    });
    runs.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_are_read_and_written() {
        assert_eq!(parse(" 0-2, 9 ,12,1", 30).unwrap(), [0, 1, 2, 9, 12]);
        assert_eq!(parse("", 3).unwrap(), [0; 0]);
        assert_eq!(print(&[0, 1, 2, 9, 12, 13]), "0-2,9,12-13");
        for wrong in ["3", "1-", "-1", "a", "2-1", "0,,1", "0-99999999999999999999", "0-1-2", ","] {
            let message = parse(wrong, 3).unwrap_err().to_string();
            assert!(!message.contains('\n') && message.contains("0-5,9,12"), "{message}");
        }
    }

    proptest! {
        #[test]
        fn any_list_survives_writing_and_reading(bits in proptest::collection::vec(any::<bool>(), 0..80)) {
            let list: Vec<usize> = (0..bits.len()).filter(|i| bits[*i]).collect();
            prop_assert_eq!(parse(&print(&list), bits.len()).unwrap(), list);
        }

        #[test]
        fn no_text_breaks_the_reader(text in ".{0,60}", blocks in 0usize..50) {
            if let Ok(list) = parse(&text, blocks) {
                prop_assert!(list.iter().all(|block| *block < blocks));
            }
        }
    }
}
