//! Compiles the kernels of `../kernels` for the host. Without a C++ compiler the crate has no device, and its tests say so.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let kernels = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../kernels");
    println!("cargo::rustc-check-cfg=cfg(shim)");
    println!("cargo::rerun-if-changed={}", kernels.display());
    println!("cargo::rerun-if-changed=cpp");
    println!("cargo::rerun-if-env-changed=CXX");

    let order =
        fs::read_to_string(kernels.join("order")).expect("gpu/kernels/order lists the kernels' files");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    // One unit: of a library, a file that only registers kernels would be left out.
    let unit = |more: &[&str]| -> String {
        order.lines().chain(more.iter().copied()).map(|file| format!("#include \"{file}\"\n")).collect()
    };
    let (path, driver) = (out.join("kernels.cpp"), out.join("fake_driver.cpp"));
    fs::write(&path, unit(&["broken.cpp", "fibers.cpp"])).expect("the build directory can be written");
    fs::write(&driver, unit(&["fibers.cpp", "nvidia.cpp"])).expect("the build directory can be written");

    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++20")
        .opt_level(2)
        .warnings(false)
        .pic(true)
        .flag_if_supported("-fwrapv")
        // A device does not load what is not aligned; `fibers.cpp` says so.
        .flag_if_supported("-fsanitize=alignment")
        // The shim leaves frames by longjmp.
        .flag_if_supported("-U_FORTIFY_SOURCE")
        .include(&kernels)
        .include("cpp")
        .flag("-include")
        .flag("shim.h");
    if let Err(error) = build.clone().file(path).try_compile("metis_gpu_shim") {
        println!("cargo::warning=the kernels' tests are skipped: {error}");
        return;
    }
    println!("cargo::rustc-cfg=shim");

    // A library with the names of NVIDIA's driver, for programs that are started with it.
    let library = out.join("libcuda.so.1");
    let mut command = build.get_compiler().to_command();
    let built = command.arg("-shared").arg("-o").arg(&library).arg(driver).status();
    if built.is_ok_and(|status| status.success()) {
        println!("cargo::rustc-env=METIS_FAKE_DRIVER={}", out.display());
    } else {
        println!("cargo::warning=no fake driver: the compiler makes no shared library");
    }
}
