//! Kernels: a shader permutation, compiled once per device, and one call of it.

use super::arguments::Arguments;
use super::shader::{self, Defines, ShaderError};
use super::{Gpu, Result};

/// A shader permutation: the name of a shader file, and definitions. Every shader has one entry
/// point `main`. In group 0 it has a uniform `Params` at binding 0, and its tensors at bindings
/// from 1.
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

    /// With a flag if the condition holds.
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
    /// The kernel.
    pub kernel: &'a Kernel,
    /// Its parameters and tensors. Views of tensors must start at multiples of 256 bytes.
    pub arguments: &'a dyn Arguments,
    /// Workgroups; see [`fold_groups`].
    pub groups: [u32; 3],
    /// Floating-point operations, for timing and for splitting work into submits.
    pub flops: f64,
}

/// Spreads `count` workgroups over two dimensions if they exceed WebGPU's limit for one. Shaders
/// compute their index as `workgroup_id.x + workgroup_id.y * num_workgroups.x`, and do nothing for
/// indices past their end.
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
        #[cfg(test)]
        let resolved = gpu.sabotaged(kernel.shader, resolved);
        let device = gpu.device();
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(kernel.shader),
            source: wgpu::ShaderSource::Wgsl(resolved.source.as_str().into()),
        };
        let module = if gpu.options().checked_shaders {
            device.create_shader_module(descriptor)
        } else {
            // SAFETY: only shaders that ship with the program get here. For the parameters that
            // `ops` passes they keep indices inside their tensors, and their loops end. The host
            // checks divisors. The tests run the same shaders with checks.
            unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
        };
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.shader),
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every kernel writes workgroup memory before reading it.
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
