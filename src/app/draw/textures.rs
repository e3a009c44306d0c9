//! Textures that are kept from frame to frame of the window.

use std::collections::HashMap;

use egui::{ColorImage, Pos2, Rect, TextureHandle, TextureOptions, pos2};

/// All of a texture.
pub const UV: Rect = Rect { min: Pos2::ZERO, max: pos2(1.0, 1.0) };

struct Kept<K> {
    shows: K,
    texture: TextureHandle,
}

/// The textures in use, one a slot. `S` names a slot, `K` says what a texture shows.
pub struct Textures<S, K>(HashMap<S, Kept<K>>);

impl<S, K> Default for Textures<S, K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<S: std::hash::Hash + Eq + std::fmt::Debug, K: PartialEq> Textures<S, K> {
    /// The texture in a slot. It is made again if it is to show something else.
    pub fn get(
        &mut self,
        ctx: &egui::Context,
        slot: S,
        shows: K,
        options: TextureOptions,
        make: impl FnOnce() -> ColorImage,
    ) -> egui::TextureId {
        if let Some(kept) = self.0.get(&slot)
            && kept.shows == shows
        {
            return kept.texture.id();
        }
        let texture = ctx.load_texture(format!("{slot:?}"), make(), options);
        let id = texture.id();
        self.0.insert(slot, Kept { shows, texture });
        id
    }
}
