//! Fonts of the system, for text in scripts that the built-in fonts lack.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use egui::epaint::text::{FallbackRequest, FontInsert, FontProvider};
use egui_system_font_provider::SystemFontProvider;

/// Lets the context look for glyphs in the fonts of the system.
pub fn install(ctx: &egui::Context) {
    ctx.add_font_provider(Arc::new(Guarded::new(SystemFontProvider::new())));
}

/// A source of fonts that may break. On a system without any font, the library that lists the
/// system's fonts panics: glyphs beyond the built-in fonts are then drawn as boxes.
struct Guarded<P> {
    inner: P,
    broken: AtomicBool,
}

impl<P> Guarded<P> {
    fn new(inner: P) -> Self {
        Self { inner, broken: AtomicBool::new(false) }
    }
}

impl<P: FontProvider> FontProvider for Guarded<P> {
    fn font_for(&self, request: &FallbackRequest<'_>) -> Option<FontInsert> {
        if self.broken.load(Ordering::Relaxed) {
            return None;
        }
        // Nothing of the source is used again after a panic.
        catch_unwind(AssertUnwindSafe(|| self.inner.font_for(request))).unwrap_or_else(|_| {
            self.broken.store(true, Ordering::Relaxed);
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn a_system_without_fonts_ends_nothing() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let breaks = move |_: &FallbackRequest<'_>| -> Option<FontInsert> {
            count.fetch_add(1, Ordering::Relaxed);
            panic!("this test's system has no font")
        };
        let guarded = Guarded::new(breaks);
        let family = egui::FontFamily::Proportional;
        for _ in 0..2 {
            assert!(guarded.font_for(&FallbackRequest { cluster: "\u{4e2d}", family: &family }).is_none());
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1, "a broken source is asked once");
    }
}
