//! Every shipped shader permutation is valid WGSL with the capabilities of its tier, stays within
//! the limits of the tier, and translates to SPIR-V, MSL and HLSL.

use ditscope::cli::shaders::{Language, translate};
use ditscope::gpu::shader::permutations;

#[test]
fn every_permutation_translates_to_every_language() {
    let mut failures = Vec::new();
    let all = permutations().unwrap();
    assert!(all.len() > 20, "only {} permutations", all.len());
    for permutation in &all {
        for language in Language::ALL {
            match translate(permutation, language) {
                Ok(text) => assert!(!text.is_empty()),
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
