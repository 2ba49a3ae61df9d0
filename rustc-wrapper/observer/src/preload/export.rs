//! How functions are exported: a few instructions each, which pass the caller's address on.
//!
//! The return address is where the call came from, and only the first instructions of a function can
//! read it without a doubt. Used by the modules that hold the functions.

/// Exports functions that pass the caller's address on as the sixth argument.
macro_rules! export {
    ($($name:ident => $to:path;)*) => {$(
        /// Stands in front of libc's function of this name.
        #[cfg_attr(preload, unsafe(no_mangle))]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            #[cfg(target_arch = "x86_64")]
            core::arch::naked_asm!("mov r9, [rsp]", "jmp {to}", to = sym $to);
            #[cfg(target_arch = "aarch64")]
            core::arch::naked_asm!("mov x5, x30", "b {to}", to = sym $to);
        }
    )*};
}

/// Exports functions by a generic one that is told which real function stands behind.
macro_rules! export_each {
    ($generic:ident: $($name:ident)*) => {$(
        #[allow(non_snake_case, reason = "libc's own name")]
        mod $name {
            use super::*;
            pub(super) unsafe extern "C" fn hook(
                a: usize, b: usize, c: usize, d: usize, e: usize, caller: usize,
            ) -> usize {
                // SAFETY: the module `preload` says why.
                unsafe { $generic(Real::$name, [a, b, c, d, e], caller) }
            }
        }
        export! { $name => $name::hook; }
    )*};
}

/// The same for functions with six arguments: the caller's address is the seventh.
macro_rules! export_six {
    ($generic:ident: $($name:ident)*) => {$(
        #[allow(non_snake_case, reason = "libc's own name")]
        mod $name {
            use super::*;
            #[allow(clippy::too_many_arguments, reason = "as many as libc's function has, and one")]
            pub(super) unsafe extern "C" fn hook(
                a: usize, b: usize, c: usize, d: usize, e: usize, f: usize, caller: usize,
            ) -> usize {
                // SAFETY: the module `preload` says why.
                unsafe { $generic(Real::$name, [a, b, c, d, e, f], caller) }
            }
        }

        /// Stands in front of libc's function of this name.
        #[cfg_attr(preload, unsafe(no_mangle))]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            // The seventh argument: on the stack, or in the seventh register.
            #[cfg(target_arch = "x86_64")]
            core::arch::naked_asm!(
                "mov rax, [rsp]", "sub rsp, 8", "mov [rsp], rax",
                "call {to}",
                "add rsp, 8", "ret",
                to = sym $name::hook,
            );
            #[cfg(target_arch = "aarch64")]
            core::arch::naked_asm!("mov x6, x30", "b {to}", to = sym $name::hook);
        }
    )*};
}
