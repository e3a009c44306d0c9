# scripts/run and scripts/test source this file. It installs only the packages that this machine
# lacks to build and run ditscope, on Debian and Ubuntu, as root or with sudo. It prints nothing if
# nothing is missing.

say() { printf 'ditscope: %s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -- "$@"; fi
}

# Installs the named packages. Prints a reason if it cannot.
install_packages() {
    [ $# -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        say "missing and not installed (neither root nor sudo): $*"
        return 0
    fi
    say "installing $*"
    as_root apt-get update -qq || say "the package lists could not be refreshed; trying with the old ones"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2 ||
        say "not all of these could be installed: $*"
}

# Pipes do not use grep -q, because it may end the pipe early, which pipefail treats as a failure.
has_library() { /sbin/ldconfig -p | grep "[[:space:]]$1 " >/dev/null; }

has_gpu() { compgen -G '/dev/dri/renderD*' >/dev/null || compgen -G '/dev/nvidia[0-9]*' >/dev/null; }

# With a GPU any Vulkan driver is sufficient, of Mesa or of the vendor. Without a GPU the driver
# must be Mesa's CPU driver.
has_vulkan_driver() {
    local name='*'
    has_gpu || name='lvp_icd*'
    compgen -G "/usr/share/vulkan/icd.d/$name.json" >/dev/null || compgen -G "/etc/vulkan/icd.d/$name.json" >/dev/null
}

missing_packages() {
    command -v cc >/dev/null || echo gcc libc6-dev # Rust links through cc
    if ! command -v cargo >/dev/null; then
        command -v curl >/dev/null || echo curl
        [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
    fi
    has_library libvulkan.so.1 || echo libvulkan1
    has_vulkan_driver || echo mesa-vulkan-drivers
    # The libraries that winit, the window's toolkit, opens at run time on X11 and on Wayland.
    has_library libX11.so.6 || echo libx11-6
    has_library libX11-xcb.so.1 || echo libx11-xcb1
    has_library libXcursor.so.1 || echo libxcursor1
    has_library libXi.so.6 || echo libxi6
    has_library libxkbcommon.so.0 || echo libxkbcommon0
    has_library libxkbcommon-x11.so.0 || echo libxkbcommon-x11-0
    has_library libwayland-client.so.0 || echo libwayland-client0
}

# The distributions' Rust is older than the rust-version in Cargo.toml, so a missing Rust comes from
# rustup.
setup_rust() {
    command -v cargo >/dev/null && return
    local cargo_env="${CARGO_HOME:-$HOME/.cargo}/env"
    if [ ! -e "$cargo_env" ]; then
        say "no cargo: installing Rust with rustup's own installer, for this user only"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --quiet --profile minimal --component clippy,rustfmt >&2 ||
            { say "Rust could not be installed; see https://rustup.rs, then run this again"; exit 1; }
    fi
    # shellcheck disable=SC1090
    . "$cargo_env"
}

# Without a runtime folder, for example in containers, some Vulkan drivers print a harmless error on
# every start.
setup_runtime_dir() {
    if [ -z "${XDG_RUNTIME_DIR:-}" ]; then
        export XDG_RUNTIME_DIR="${XDG_CACHE_HOME:-$HOME/.cache}/ditscope/run"
        mkdir -p -m 700 "$XDG_RUNTIME_DIR"
    fi
}

# The Mesa of Debian 12 (22.3) runs the kernels on the CPU 2 to 5 times slower than the Mesa of its
# backports. If the newer Mesa can be downloaded, it is unpacked into the user's cache, and the
# system is not changed. Otherwise the system's driver is used.
setup_lavapipe() {
    local cache="${XDG_CACHE_HOME:-$HOME/.cache}/ditscope" mesa log
    if has_gpu || [ -n "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ]; then return 0; fi
    mesa=$(dpkg-query -W -f '${Version}' mesa-vulkan-drivers 2>/dev/null) || return 0
    dpkg --compare-versions "$mesa" lt 24 || return 0
    if ! compgen -G "$cache/mesa-*/lvp.json" >/dev/null; then
        say "no GPU here: looking for a faster Mesa than the system's $mesa, for this user only"
        if ! log=$("$(dirname "${BASH_SOURCE[0]}")/fetch-lavapipe" "$cache" 2>&1); then
            say "none to be had, using the system's (${log##*$'\n'})"
            return 0
        fi
    fi
    VK_DRIVER_FILES=$(compgen -G "$cache/mesa-*/lvp.json" | sort -V | tail -n 1)
    export VK_DRIVER_FILES
    # The driver uses its own copies of libraries only if the system's libraries do not satisfy it.
    local folder=${VK_DRIVER_FILES%/*}
    if ldd -r "$folder"/libvulkan_lvp.so 2>&1 | grep -E 'not found|undefined symbol' >/dev/null; then
        export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    fi
}

setup() {
    if ! command -v apt-get >/dev/null; then
        say "$0 sets up Debian and Ubuntu only; with Rust and a Vulkan, Metal or DirectX 12 driver: $1"
        exit 1
    fi
    # shellcheck disable=SC2046 # one word a package
    install_packages $(missing_packages)
    setup_rust
    setup_runtime_dir
    setup_lavapipe
}
