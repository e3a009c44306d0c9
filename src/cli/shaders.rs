//! The command `ditscope shaders`, which lists the shipped permutations and writes them in other
//! shading languages.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};

use crate::gpu::shader::{self, Permutation};
use crate::media::portable_name;

/// Arguments of `ditscope shaders`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write every permutation in this language
    #[arg(long)]
    emit: Option<Language>,
    /// Folder to write to
    #[arg(short, long, default_value = "shaders-out", requires = "emit")]
    output: PathBuf,
}

/// A shading language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// Metal Shading Language.
    Msl,
    /// High-Level Shading Language (DirectX 12).
    Hlsl,
    /// SPIR-V (Vulkan).
    Spirv,
}

impl Language {
    /// All languages.
    pub const ALL: [Self; 3] = [Self::Msl, Self::Hlsl, Self::Spirv];

    fn extension(self) -> &'static str {
        match self {
            Self::Msl => "metal",
            Self::Hlsl => "hlsl",
            Self::Spirv => "spv",
        }
    }
}

/// Lists or writes the permutations.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let permutations = shader::permutations()?;
    let Some(language) = args.emit else {
        for permutation in &permutations {
            out!("{}", permutation.name());
        }
        return Ok(());
    };
    std::fs::create_dir_all(&args.output).with_context(|| format!("cannot make {}", args.output.display()))?;
    for permutation in &permutations {
        let path = args.output.join(format!("{}.{}", portable_name(&permutation.name()), language.extension()));
        std::fs::write(&path, translate(permutation, language)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    out!("{} shaders written to {}", permutations.len(), args.output.display());
    Ok(())
}

/// Translates one permutation. The permutation must be valid with the capabilities of its tier.
pub fn translate(permutation: &Permutation, language: Language) -> anyhow::Result<Vec<u8>> {
    let resolved = shader::resolve(&permutation.shader, &permutation.defines)?;
    let module = naga::front::wgsl::parse_str(&resolved.source).map_err(|error| {
        let line = error.location(&resolved.source).map_or(0, |location| location.line_number as usize);
        anyhow!("{}: {}: {error}", permutation.name(), resolved.origin(line))
    })?;
    // Packing f16 values into u32 is part of WebGPU itself, but naga counts it as a capability.
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SUBGROUP, permutation.subgroups);
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE);
    validator.subgroup_operations(naga::valid::SubgroupOperationSet::all());
    let info = validator
        .validate(&module)
        .map_err(|error| anyhow!("{}: {}", permutation.name(), error.emit_to_string(&resolved.source)))?;
    let failed = |error: &dyn std::fmt::Display| anyhow!("{} as {language:?}: {error}", permutation.name());
    match language {
        Language::Spirv => {
            let words =
                spv::write_vec(&module, &info, &spv::Options { lang_version: (1, 3), ..Default::default() }, None)
                    .map_err(|error| failed(&error))?;
            Ok(bytemuck::cast_slice(&words).to_vec())
        }
        Language::Msl => {
            let options = msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..Default::default() };
            let (text, _) =
                msl::write_string(&module, &info, &options, &Default::default()).map_err(|error| failed(&error))?;
            Ok(text.into_bytes())
        }
        Language::Hlsl => {
            let mut text = String::new();
            let options = hlsl::Options {
                shader_model: hlsl::ShaderModel::V6_2,
                fake_missing_bindings: true,
                ..Default::default()
            };
            hlsl::Writer::new(&mut text, &options, &Default::default())
                .write(&module, &info, None)
                .map_err(|error| failed(&error))?;
            Ok(text.into_bytes())
        }
    }
}
