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
    let includes =
        |files: &[&str]| -> String { files.iter().map(|file| format!("#include \"{file}\"\n")).collect() };
    // One unit: of a library, a file that only registers kernels would be left out. Kernels are the unit's own.
    let unit = |broken: &[&str], more: &[&str]| {
        let kernels: Vec<&str> = order.lines().chain(broken.iter().copied()).collect();
        format!("namespace {{\n{}}}\n{}", includes(&kernels), includes(more))
    };
    let write = |name: &str, text: String| {
        let path = out.join(name);
        fs::write(&path, text).expect("the build directory can be written");
        path
    };
    let path = write("kernels.cpp", unit(&["broken.cpp"], &["fibers.cpp"]));
    let driver = write("fake_driver.cpp", unit(&[], &["fibers.cpp", "nvidia.cpp"]));
    // Of what is watched only the kernels are compiled to be; the other unit asks for this one by a name.
    let there = "extern \"C\" void metis_watched_kernels() {}\n";
    let watched = write("watched.cpp", unit(&["broken.cpp"], &[]) + there);
    let watcher = write("watcher.cpp", includes(&["fibers.cpp", "races.cpp"]));

    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++20")
        .opt_level(2)
        .warnings(false)
        .pic(true)
        .flag_if_supported("-fwrapv")
        // The shim leaves frames by longjmp.
        .flag_if_supported("-U_FORTIFY_SOURCE")
        .include(&kernels)
        .include("cpp")
        .flag("-include")
        .flag("shim.h");
    let mut watching = build.clone();
    // The same names for everything twice.
    watching.define("SHIM_WATCHED", None).define("shim", "shim_watched");
    watching.define("metis_shim_run", "metis_shim_watched_run");
    watching.define("metis_shim_fault", "metis_shim_watched_fault");
    // A device does not load what is not aligned; `fibers.cpp` says so.
    build.flag_if_supported("-fsanitize=alignment");
    let compiled = (build.clone().file(path).try_compile("metis_gpu_shim"))
        .and_then(|()| watching.clone().file(watcher).try_compile("metis_gpu_shim_watcher"))
        .and_then(|()| {
            watching.flag("-fsanitize=thread").file(watched).try_compile("metis_gpu_shim_watched")
        });
    if let Err(error) = compiled {
        println!("cargo::warning=the kernels' tests are skipped: {error}");
        return;
    }
    println!("cargo::rustc-cfg=shim");

    // Libraries with the names of NVIDIA's driver, for programs that are started with one of them.
    let library = |folder: &Path, source: &Path, flags: &[&str], variable: &str| {
        fs::create_dir_all(folder).expect("the build directory can be written");
        let mut command = build.get_compiler().to_command();
        command.args(flags).arg("-shared").arg("-o").arg(folder.join("libcuda.so.1")).arg(source);
        let built = command.status();
        if built.is_ok_and(|status| status.success()) {
            println!("cargo::rustc-env={variable}={}", folder.display());
        } else {
            println!("cargo::warning=no fake driver: the compiler makes no shared library");
        }
    };
    library(&out.join("driver"), &driver, &[], "METIS_FAKE_DRIVER");
    library(
        &out.join("old_driver"),
        Path::new("cpp/old_nvidia.cpp"),
        &["-fno-sanitize=all"],
        "METIS_OLD_DRIVER",
    );
}
