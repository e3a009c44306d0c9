//! The command `ditscope shaders`, which lists the shipped permutations and writes them as drivers
//! get them.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use naga::back::{hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

use crate::gpu::shader::{self, Permutation};

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
    /// WebGPU Shading Language, composed, for other compilers of it.
    Wgsl,
}

impl Language {
    /// All languages.
    pub const ALL: [Self; 4] = [Self::Msl, Self::Hlsl, Self::Spirv, Self::Wgsl];

    fn extension(self) -> &'static str {
        match self {
            Self::Msl => "metal",
            Self::Hlsl => "hlsl",
            Self::Spirv => "spv",
            Self::Wgsl => "wgsl",
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
        let path = args.output.join(format!("{}.{}", permutation.name(), language.extension()));
        std::fs::write(&path, translate(permutation, language)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    out!("{} shaders written to {}", permutations.len(), args.output.display());
    Ok(())
}

/// Parses and validates one permutation, with the capabilities of its tier.
///
/// # Errors
/// The composed text is no valid WGSL.
pub fn parse(permutation: &Permutation) -> anyhow::Result<(naga::Module, ModuleInfo)> {
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
    Ok((module, info))
}

/// Translates one permutation into what the driver gets when the program runs: without bounds
/// checks, without bounds on loops, and without workgroup memory filled with zeros (see
/// `gpu/kernel.rs`). The numbers of bindings are naga's stand-ins, because they come from the
/// pipeline's layout.
///
/// # Errors
/// The permutation is not valid WGSL, or naga cannot write it in this language.
pub fn translate(permutation: &Permutation, language: Language) -> anyhow::Result<Vec<u8>> {
    let (module, info) = parse(permutation)?;
    let failed = |error: &dyn std::fmt::Display| anyhow!("{} as {language:?}: {error}", permutation.name());
    match language {
        Language::Spirv => {
            let words = spv::write_vec(&module, &info, &spirv(), None).map_err(|error| failed(&error))?;
            Ok(bytemuck::cast_slice(&words).to_vec())
        }
        Language::Msl => {
            let (text, _) =
                msl::write_string(&module, &info, &metal(), &Default::default()).map_err(|error| failed(&error))?;
            Ok(text.into_bytes())
        }
        Language::Hlsl => {
            let mut text = String::new();
            let options = directx(permutation.subgroups);
            let pipeline = hlsl::PipelineOptions::default();
            hlsl::Writer::new(&mut text, &options, &pipeline)
                .write(&module, &info, None)
                .map_err(|error| failed(&error))?;
            Ok(text.into_bytes())
        }
        Language::Wgsl => {
            let source = shader::resolve(&permutation.shader, &permutation.defines)?.source;
            // Browsers ask for this line. naga refuses it and does without.
            let enable = if permutation.subgroups { "enable subgroups;\n" } else { "" };
            Ok(format!("{enable}{source}").into_bytes())
        }
    }
}

/// No check of any index, as the program's pipelines have it.
const UNCHECKED: BoundsCheckPolicies = BoundsCheckPolicies {
    index: BoundsCheckPolicy::Unchecked,
    buffer: BoundsCheckPolicy::Unchecked,
    image_load: BoundsCheckPolicy::Unchecked,
    binding_array: BoundsCheckPolicy::Unchecked,
};

fn spirv() -> spv::Options<'static> {
    spv::Options {
        lang_version: (1, 3),
        bounds_check_policies: UNCHECKED,
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..Default::default()
    }
}

fn metal() -> msl::Options {
    msl::Options {
        lang_version: (2, 4),
        fake_missing_bindings: true,
        bounds_check_policies: UNCHECKED,
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..Default::default()
    }
}

/// FXC compiles for shader model 5.1, which has no subgroup operations. DXC compiles both texts.
fn directx(subgroups: bool) -> hlsl::Options {
    hlsl::Options {
        shader_model: if subgroups { hlsl::ShaderModel::V6_0 } else { hlsl::ShaderModel::V5_1 },
        fake_missing_bindings: true,
        zero_initialize_workgroup_memory: false,
        restrict_indexing: false,
        force_loop_bounding: false,
        ..Default::default()
    }
}
