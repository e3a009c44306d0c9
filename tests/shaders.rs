//! Every shipped shader permutation is valid WGSL with the capabilities of its tier, stays within
//! the limits of the tier, and translates to SPIR-V, MSL and HLSL. Its parameters, tensors and
//! constants are those that the Rust side declares. `shaders/barriers.rs` checks its barriers.

mod barriers;

use std::collections::BTreeSet;

use ditscope::cli::shaders::{Language, translate};
use ditscope::gpu::arguments::{Access, Field, Interface, Scalar};
use ditscope::gpu::shader::{Permutation, permutations, resolve};
use ditscope::ops::INTERFACES;
use naga::{AddressSpace, Expression, Handle, Literal, Module, ScalarKind, StorageAccess, Type, TypeInner};

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

#[test]
fn every_permutation_declares_the_arguments_that_the_host_passes() {
    let (mut failures, mut met) = (BTreeSet::new(), BTreeSet::new());
    for permutation in &permutations().unwrap() {
        let serves =
            |(_, interface): &(usize, &&Interface)| interface.serves(&permutation.shader, &permutation.defines);
        let found: Vec<_> = INTERFACES.iter().enumerate().filter(serves).collect();
        let [(index, interface)] = found[..] else {
            failures.insert(format!("{}: {} declarations in Rust", permutation.name(), found.len()));
            continue;
        };
        met.insert(index);
        let source = resolve(&permutation.shader, &permutation.defines).unwrap().source;
        let module = naga::front::wgsl::parse_str(&source).unwrap();
        let wgsl = Shader { module: &module, permutation };
        for (what, rust, wgsl) in [
            ("parameters", parameters(interface), wgsl.parameters()),
            ("tensors", tensors(interface, permutation), wgsl.tensors()),
            ("constants", constants(interface), wgsl.constants(interface)),
        ] {
            if rust != wgsl {
                let only = |of: &[String], other: &[String]| {
                    of.iter().filter(|line| !other.contains(line)).cloned().collect::<Vec<_>>().join(", ")
                };
                let [in_rust, in_wgsl] = [only(&rust, &wgsl), only(&wgsl, &rust)];
                let name = permutation.name();
                failures.insert(format!("{name}: {what}\n  only in Rust: {in_rust}\n  only in WGSL: {in_wgsl}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), Vec::from_iter(failures).join("\n"));
    let unused = INTERFACES.iter().enumerate().filter(|(index, _)| !met.contains(index));
    let unused: Vec<_> = unused.map(|(_, interface)| interface.shaders).collect();
    assert!(unused.is_empty(), "no shipped permutation takes the arguments declared for {unused:?}");
}

/// The parameters in Rust, in order, and their size. Padding has no counterpart in a shader.
fn parameters(interface: &Interface) -> Vec<String> {
    let fields = interface.fields.iter().filter(|field| !field.name.starts_with("padding"));
    fields.map(parameter).chain([format!("{} bytes", interface.size)]).collect()
}

fn parameter(field: &Field) -> String {
    format!("{} at {}: {} bytes of {:?}", field.name, field.offset, field.size, field.scalar)
}

/// The tensors in Rust of a permutation, by binding number.
fn tensors(interface: &Interface, permutation: &Permutation) -> Vec<String> {
    let defined = |flag: &str| permutation.defines.contains_key(flag);
    let mut slots: Vec<_> = interface.slots.iter().filter(|slot| slot.flag.is_none_or(defined)).collect();
    slots.sort_by_key(|slot| slot.binding);
    slots
        .iter()
        .map(|slot| tensor(slot.binding, slot.name, slot.access, slot.elements.scalar(&permutation.defines)))
        .collect()
}

fn tensor(binding: u32, name: &str, access: Access, scalar: Scalar) -> String {
    format!("{binding} {name}: {access:?} {scalar:?}")
}

/// The constants in Rust.
fn constants(interface: &Interface) -> Vec<String> {
    interface.constants.iter().map(|(name, value)| format!("{name} = {value}")).collect()
}

/// The same of a parsed permutation.
struct Shader<'a> {
    module: &'a Module,
    permutation: &'a Permutation,
}

impl Shader<'_> {
    fn inner(&self, ty: Handle<Type>) -> &TypeInner {
        &self.module.types[ty].inner
    }

    /// The type of the numbers in a number, a vector or an array of these.
    fn scalar(&self, ty: Handle<Type>) -> Scalar {
        let (TypeInner::Scalar(scalar) | TypeInner::Vector { scalar, .. }) = *self.inner(ty) else {
            let TypeInner::Array { base, .. } = *self.inner(ty) else {
                panic!("{}: {:?}", self.permutation.name(), self.inner(ty));
            };
            return self.scalar(base);
        };
        match (scalar.kind, scalar.width) {
            (ScalarKind::Float, 4) => Scalar::F32,
            (ScalarKind::Uint, 4) => Scalar::U32,
            _ => panic!("{}: {scalar:?}", self.permutation.name()),
        }
    }

    /// The members of the uniform at binding 0, in order, and their size.
    fn parameters(&self) -> Vec<String> {
        let uniform = self.module.global_variables.iter().map(|(_, variable)| variable);
        let mut uniform = uniform.filter(|variable| variable.space == AddressSpace::Uniform);
        let (Some(variable), None) = (uniform.next(), uniform.next()) else {
            return vec!["not one uniform".into()];
        };
        assert_eq!(variable.binding.map(|binding| (binding.group, binding.binding)), Some((0, 0)));
        let TypeInner::Struct { ref members, span } = *self.inner(variable.ty) else {
            return vec!["no struct".into()];
        };
        let members = members.iter().map(|member| {
            let (offset, size) = (member.offset, self.inner(member.ty).size(self.module.to_ctx()));
            let name = member.name.as_deref().unwrap_or_default();
            format!("{name} at {offset}: {size} bytes of {:?}", self.scalar(member.ty))
        });
        members.chain([format!("{span} bytes")]).collect()
    }

    /// The storage buffers, by binding number.
    fn tensors(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (_, variable) in self.module.global_variables.iter() {
            let AddressSpace::Storage { access } = variable.space else { continue };
            let writes = access.contains(StorageAccess::STORE);
            let access = if writes { Access::ReadWrite } else { Access::Read };
            let binding = variable.binding.expect("a storage buffer has a binding");
            assert_eq!(binding.group, 0);
            let name = variable.name.as_deref().unwrap_or_default();
            all.push((binding.binding, tensor(binding.binding, name, access, self.scalar(variable.ty))));
        }
        all.sort();
        all.into_iter().map(|(_, tensor)| tensor).collect()
    }

    /// The constants of the names that the Rust side has.
    fn constants(&self, interface: &Interface) -> Vec<String> {
        let value = |name: &str| {
            let named = |constant: &&naga::Constant| constant.name.as_deref() == Some(name);
            let constant = self.module.constants.iter().map(|(_, constant)| constant).find(named)?;
            match self.module.global_expressions[constant.init] {
                Expression::Literal(Literal::U32(value)) => Some(value),
                _ => None,
            }
        };
        let text = |name| value(name).map_or(format!("no {name}"), |value| format!("{name} = {value}"));
        interface.constants.iter().map(|(name, _)| text(name)).collect()
    }
}
