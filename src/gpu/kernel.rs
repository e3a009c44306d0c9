//! Kernels: a shader permutation, compiled once per device, and one call of it.

use super::shader::{self, Defines, ShaderError};
use super::{Gpu, Result, Tensor};

/// A shader permutation by name: which file, with which definitions. Every shader has one entry point `main`, a uniform
/// `Params` at binding 0 and its tensors at bindings from 1 of group 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kernel {
    shader: &'static str,
    defines: Defines,
}

impl Kernel {
    /// Shader `shaders/NAME.wgsl` without definitions.
    pub fn new(shader: &'static str) -> Self {
        Self { shader, defines: Defines::new() }
    }

    /// With a flag.
    pub fn flag(mut self, name: &str) -> Self {
        self.defines.insert(name.into(), String::new());
        self
    }

    /// With a flag where the condition holds.
    pub fn flag_if(self, condition: bool, name: &str) -> Self {
        if condition { self.flag(name) } else { self }
    }

    /// With a constant.
    pub fn set(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.defines.insert(name.into(), value.to_string());
        self
    }

    /// The shader file's name.
    pub fn shader(&self) -> &'static str {
        self.shader
    }

    /// The definitions.
    pub fn defines(&self) -> &Defines {
        &self.defines
    }
}

impl std::fmt::Display for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.shader)?;
        for (key, value) in &self.defines {
            write!(f, " {key}{}{value}", if value.is_empty() { "" } else { "=" })?;
        }
        Ok(())
    }
}

/// One call of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Dispatch<'a> {
    /// What to run.
    pub kernel: &'a Kernel,
    /// Tensors by binding number, from 1. Their views must start at multiples of 256 bytes.
    pub tensors: &'a [(u32, &'a Tensor)],
    /// The bytes of the shader's `Params`.
    pub params: &'a [u8],
    /// Workgroups; see [`fold_groups`].
    pub groups: [u32; 3],
    /// Floating-point operations, for timing and for splitting work into submits.
    pub flops: f64,
}

/// Spreads `count` workgroups over two dimensions where they exceed WebGPU's limit for one. Shaders read the index as
/// `workgroup_id.x + workgroup_id.y * num_workgroups.x` and ignore those past their end.
pub fn fold_groups(count: usize) -> [u32; 3] {
    const LIMIT: usize = 65_535;
    let rows = count.div_ceil(LIMIT).max(1);
    [count.div_ceil(rows).max(1) as u32, rows as u32, 1]
}

/// A kernel on a device.
#[derive(Debug)]
pub(super) struct CompiledKernel {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

impl CompiledKernel {
    pub(super) fn compile(gpu: &Gpu, kernel: &Kernel) -> Result<Self> {
        let resolved = shader::resolve(kernel.shader, &kernel.defines)?;
        let device = gpu.device();
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(kernel.shader),
            source: wgpu::ShaderSource::Wgsl(resolved.source.as_str().into()),
        };
        let module = if gpu.options().checked_shaders {
            device.create_shader_module(descriptor)
        } else {
            // SAFETY: only shaders that ship with the program get here; each keeps its indices inside its tensors for the
            // parameters that `ops` passes, its loops end, its divisors are checked on the host, and the tests run
            // them with checks on as well.
            unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
        };
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.shader),
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every kernel writes its workgroup memory before it reads it.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        let error = pollster::block_on(scope.pop());
        if let Some(error) = error {
            return Err(ShaderError::Compile { kernel: kernel.to_string(), message: error.to_string() }.into());
        }
        let layout = pipeline.get_bind_group_layout(0);
        Ok(Self { pipeline, layout })
    }
}

#[cfg(test)]
mod tests {
    use super::fold_groups;

    #[test]
    fn folded_groups_cover_the_count_within_the_limit() {
        for count in [0, 1, 65_535, 65_536, 65_537, 1_000_000, 70_000_000] {
            let [x, y, z] = fold_groups(count);
            assert!(x as usize * y as usize >= count && z == 1 && x <= 65_535 && y <= 65_535, "{count}: {x} {y}");
            assert!((x as usize * y as usize) < count + y as usize + 1, "{count}: few idle groups");
        }
    }
}
