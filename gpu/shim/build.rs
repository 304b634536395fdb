//! Compiles the kernels of `../kernels` for the host. Without a C++ compiler the crate has no device, and its tests say so.

use std::path::Path;
use std::{env, fs};

fn main() {
    let kernels = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../kernels");
    println!("cargo::rustc-check-cfg=cfg(shim)");
    println!("cargo::rerun-if-changed={}", kernels.display());
    println!("cargo::rerun-if-changed=cpp");
    println!("cargo::rerun-if-env-changed=CXX");

    let order = fs::read_to_string(kernels.join("order")).expect("gpu/kernels/order lists the kernels' files");
    // One unit: of a library, a file that only registers kernels would be left out.
    let files = order.lines().chain(["fibers.cpp"]);
    let unit: String = files.map(|file| format!("#include \"{file}\"\n")).collect();
    let path = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("kernels.cpp");
    fs::write(&path, unit).expect("the build directory can be written");

    let compiled = cc::Build::new()
        .cpp(true)
        .std("c++20")
        .opt_level(2)
        .warnings(false)
        .flag_if_supported("-fwrapv")
        // The shim leaves frames by longjmp.
        .flag_if_supported("-U_FORTIFY_SOURCE")
        .include(&kernels)
        .include("cpp")
        .flag("-include")
        .flag("shim.h")
        .file(path)
        .try_compile("metis_gpu_shim");
    match compiled {
        Ok(()) => println!("cargo::rustc-cfg=shim"),
        Err(error) => println!("cargo::warning=the kernels' tests are skipped: {error}"),
    }
}
