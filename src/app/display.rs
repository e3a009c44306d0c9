//! Which display the window opens on.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A display for the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Display {
    /// There is none.
    None,
    /// X11, although the environment also names Wayland: no compositor answers there.
    X11,
    /// What the system prefers.
    Preferred,
}

/// The display of this process. A session that has ended may leave `WAYLAND_DISPLAY` behind, for
/// example in tmux or over ssh.
pub fn display() -> Display {
    if cfg!(any(windows, target_os = "macos")) {
        return Display::Preferred;
    }
    of_environment(|name| std::env::var_os(name), answers)
}

fn of_environment(variable: impl Fn(&str) -> Option<OsString>, answers: impl Fn(&Path) -> bool) -> Display {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let x11 = set("DISPLAY").is_some();
    let socket = |name: &OsStr| match Path::new(name).is_absolute() {
        true => Some(PathBuf::from(name)),
        false => Some(Path::new(&set("XDG_RUNTIME_DIR")?).join(name)),
    };
    // WAYLAND_SOCKET is an open connection, so it needs no file.
    let wayland = set("WAYLAND_SOCKET").is_some()
        || set("WAYLAND_DISPLAY").and_then(|name| socket(&name)).is_some_and(|path| answers(&path));
    match (wayland, x11) {
        (true, _) => Display::Preferred,
        (false, true) if set("WAYLAND_DISPLAY").is_some() => Display::X11,
        (false, true) => Display::Preferred,
        (false, false) => Display::None,
    }
}

#[cfg(unix)]
fn answers(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

#[cfg(not(unix))]
fn answers(_socket: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compositor_that_is_gone_leaves_x11() {
        let cases: [(&[(&str, &str)], Display); 8] = [
            (&[], Display::None),
            (&[("DISPLAY", "")], Display::None),
            (&[("DISPLAY", ":0")], Display::Preferred),
            (&[("WAYLAND_DISPLAY", "wayland-0"), ("XDG_RUNTIME_DIR", "/run/here")], Display::Preferred),
            (&[("WAYLAND_DISPLAY", "wayland-9"), ("XDG_RUNTIME_DIR", "/run/here"), ("DISPLAY", ":0")], Display::X11),
            (&[("WAYLAND_DISPLAY", "wayland-0"), ("DISPLAY", ":0")], Display::X11),
            (&[("WAYLAND_DISPLAY", "wayland-9"), ("XDG_RUNTIME_DIR", "/run/here")], Display::None),
            (&[("WAYLAND_SOCKET", "7")], Display::Preferred),
        ];
        for (environment, expected) in cases {
            let variable = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
            let found = of_environment(variable, |path| path == Path::new("/run/here/wayland-0"));
            assert_eq!(found, expected, "{environment:?}");
        }
    }
}
