//! The arguments of a shader: parameters and tensors.
//!
//! The macro `arguments!` declares both once on the Rust side. `tests/shaders.rs` parses
//! every shipped permutation and compares the declaration with the WGSL: offsets, sizes and types
//! of the parameters, and number, name, access and elements of every tensor.

use super::shader::Defines;
use super::{ElementType, Tensor};

/// Type of a number in a shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// 32-bit float.
    F32,
    /// Unsigned 32-bit integer.
    U32,
}

/// One member of a shader's `Params`, as Rust lays it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name. Fields named `padding...` exist in Rust only.
    pub name: &'static str,
    /// First byte.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
    /// Type of its numbers.
    pub scalar: Scalar,
}

/// How a shader uses a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The shader reads it.
    Read,
    /// The shader writes it, and may read it.
    ReadWrite,
}

/// Element types that a shader takes in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elements {
    /// 32-bit floats.
    F32,
    /// Unsigned 32-bit integers.
    U32,
    /// Weights of the type that the permutation names by its definition `FORMAT`. The shader sees
    /// all but 32-bit floats as packed `u32`s.
    Weight,
}

impl Elements {
    /// Whether a tensor of this type may be bound.
    pub fn take(self, tensor: ElementType) -> bool {
        match self {
            Self::F32 => tensor == ElementType::F32,
            Self::U32 => tensor == ElementType::U32,
            Self::Weight => true,
        }
    }

    /// Their type in the WGSL of a permutation.
    pub fn scalar(self, defines: &Defines) -> Scalar {
        match self {
            Self::F32 => Scalar::F32,
            Self::Weight if defines.get("FORMAT").is_some_and(|format| format == "f32") => Scalar::F32,
            Self::U32 | Self::Weight => Scalar::U32,
        }
    }
}

/// A place for a tensor: one binding of group 0.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// The variable's name in the shader.
    pub name: &'static str,
    /// Binding number.
    pub binding: u32,
    /// How the shader uses the tensor.
    pub access: Access,
    /// The element types that the tensor may have.
    pub elements: Elements,
    /// The flag under which the shader has this slot; `None` if it always has.
    pub flag: Option<&'static str>,
}

/// The declared arguments of some permutations of some shaders.
#[derive(Clone, Copy, Debug)]
pub struct Interface {
    /// Names of the shaders.
    pub shaders: &'static [&'static str],
    /// Flags that a permutation must have.
    pub with: &'static [&'static str],
    /// Flags that a permutation must not have.
    pub without: &'static [&'static str],
    /// Bytes of the parameters.
    pub size: usize,
    /// The parameters.
    pub fields: &'static [Field],
    /// The tensors.
    pub slots: &'static [Slot],
    /// Constants that the host shares with the shader.
    pub constants: &'static [(&'static str, u32)],
}

impl Interface {
    /// Whether a permutation takes these arguments.
    pub fn serves(&self, shader: &str, defines: &Defines) -> bool {
        let defined = |flag: &&str| defines.contains_key(*flag);
        self.shaders.contains(&shader) && self.with.iter().all(defined) && !self.without.iter().any(defined)
    }
}

/// A tensor in its slot.
#[derive(Clone, Copy, Debug)]
pub struct Bound<'a> {
    /// The slot.
    pub slot: &'static Slot,
    /// The tensor.
    pub tensor: &'a Tensor,
    /// Whether the parameters tell the shader not to read the slot. WebGPU requires a binding, so
    /// another tensor stands in.
    pub stand_in: bool,
}

/// The arguments of one call of a kernel.
pub trait Arguments: std::fmt::Debug {
    /// Their declaration.
    fn interface(&self) -> &'static Interface;
    /// The bytes of the parameters.
    fn params(&self) -> &[u8];
    /// The tensors.
    fn bound(&self) -> Vec<Bound<'_>>;
}

/// A type that a parameter may have.
pub trait Parameter {
    /// Type of its numbers.
    const SCALAR: Scalar;
}

impl Parameter for f32 {
    const SCALAR: Scalar = Scalar::F32;
}

impl Parameter for u32 {
    const SCALAR: Scalar = Scalar::U32;
}

impl<T: Parameter, const N: usize> Parameter for [T; N] {
    const SCALAR: Scalar = T::SCALAR;
}

/// Declares the arguments of a kernel: a struct of parameters, and a struct of these and the
/// tensors.
///
/// ```text
/// arguments! {
///     /// Arguments of `combine.wgsl`.
///     Combine => ["combine"];            // shaders; then `with "FLAG"` or `without "FLAG"`
///     params CombineParams {
///         count4: u32,
///     }
///     tensors {
///         x @ 1: Read F32,               // field and WGSL variable @ binding: Access Elements
///     }
///     flagged {
///         bias @ 5: Read F32 if "BIAS",  // an `Option`, given where the permutation has the flag
///     }
///     replaceable {
///         gate @ 6: Read F32 else x,     // an `Option`; `None` binds `x` in its place
///     }
///     constants {
///         THREADS = 64,                  // a WGSL constant that the host relies on
///     }
/// }
/// ```
macro_rules! arguments {
    (
        $(#[$attribute:meta])*
        $name:ident => [$($shader:literal),+] $(with $with:literal)? $(without $without:literal)?;
        params $params:ident { $($field:ident: $type:ty,)* }
        tensors { $($tensor:ident @ $binding:literal: $access:ident $elements:ident,)* }
        $(flagged { $($flagged:ident @ $f_binding:literal: $f_access:ident $f_elements:ident if $flag:literal,)* })?
        $(replaceable { $($maybe:ident @ $m_binding:literal: $m_access:ident $m_elements:ident else $other:ident,)* })?
        $(constants { $($constant:ident = $value:expr,)* })?
    ) => {
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
        pub(super) struct $params { $(pub(super) $field: $type,)* }

        $(#[$attribute])*
        #[derive(Clone, Copy, Debug)]
        pub(super) struct $name<'a> {
            pub(super) params: $params,
            $(pub(super) $tensor: &'a $crate::gpu::Tensor,)*
            $($(pub(super) $flagged: Option<&'a $crate::gpu::Tensor>,)*)?
            $($(pub(super) $maybe: Option<&'a $crate::gpu::Tensor>,)*)?
        }

        impl $name<'_> {
            /// The declaration, which `tests/shaders.rs` compares with the shader.
            pub(super) const INTERFACE: &'static $crate::gpu::arguments::Interface =
                &$crate::gpu::arguments::Interface {
                shaders: &[$($shader),+],
                with: &[$($with)?],
                without: &[$($without)?],
                size: size_of::<$params>(),
                fields: &[$($crate::gpu::arguments::Field {
                    name: stringify!($field),
                    offset: std::mem::offset_of!($params, $field),
                    size: size_of::<$type>(),
                    scalar: <$type as $crate::gpu::arguments::Parameter>::SCALAR,
                }),*],
                slots: &[
                    $($crate::gpu::arguments::arguments!(slot $tensor $binding $access $elements None),)*
                    $($($crate::gpu::arguments::arguments!(slot $flagged $f_binding $f_access $f_elements Some($flag)),)*)?
                    $($($crate::gpu::arguments::arguments!(slot $maybe $m_binding $m_access $m_elements None),)*)?
                ],
                constants: &[$($((stringify!($constant), $value),)*)?],
            };
        }

        impl $crate::gpu::arguments::Arguments for $name<'_> {
            fn interface(&self) -> &'static $crate::gpu::arguments::Interface {
                Self::INTERFACE
            }

            fn params(&self) -> &[u8] {
                bytemuck::bytes_of(&self.params)
            }

            fn bound(&self) -> Vec<$crate::gpu::arguments::Bound<'_>> {
                let given = |tensor| (tensor, false);
                // In the order of the slots: the tensor, and whether it stands in for another.
                let tensors = [
                    $(Some(given(self.$tensor)),)*
                    $($(self.$flagged.map(given),)*)?
                    $($(Some(self.$maybe.map_or((self.$other, true), given)),)*)?
                ];
                let slots = Self::INTERFACE.slots.iter().zip(tensors);
                slots
                    .filter_map(|(slot, tensor)| {
                        tensor.map(|(tensor, stand_in)| $crate::gpu::arguments::Bound { slot, tensor, stand_in })
                    })
                    .collect()
            }
        }
    };
    (slot $name:ident $binding:literal $access:ident $elements:ident $flag:expr) => {
        $crate::gpu::arguments::Slot {
            name: stringify!($name),
            binding: $binding,
            access: $crate::gpu::arguments::Access::$access,
            elements: $crate::gpu::arguments::Elements::$elements,
            flag: $flag,
        }
    };
}

pub(crate) use arguments;
