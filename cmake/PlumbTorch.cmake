# libtorch as it comes in the PyTorch wheel, the reference of the kernel tests. TorchConfig.cmake of the wheel wants a CUDA toolkit and the
# whole of CUDA's libraries; the CPU build needs torch_cpu and c10 alone.
set(PLUMB_TORCH_DIR "" CACHE PATH "the folder 'torch' of an installed PyTorch wheel")
if(NOT PLUMB_TORCH_DIR)
  file(GLOB _torch_candidates "${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch")
  list(POP_FRONT _torch_candidates PLUMB_TORCH_DIR)
endif()
if(NOT EXISTS "${PLUMB_TORCH_DIR}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "no libtorch_cpu.so under PLUMB_TORCH_DIR='${PLUMB_TORCH_DIR}': run scripts/setup.sh, "
                      "or pass -DPLUMB_TORCH_DIR=<site-packages>/torch, or leave PLUMB_WITH_TORCH off")
endif()
get_filename_component(_site "${PLUMB_TORCH_DIR}" DIRECTORY)
file(GLOB _nvidia_libs LIST_DIRECTORIES true "${_site}/nvidia/*/lib")

add_library(plumb_torch INTERFACE)
add_library(plumb::torch ALIAS plumb_torch)
target_include_directories(plumb_torch SYSTEM INTERFACE
  "${PLUMB_TORCH_DIR}/include" "${PLUMB_TORCH_DIR}/include/torch/csrc/api/include")
target_link_libraries(plumb_torch INTERFACE
  "${PLUMB_TORCH_DIR}/lib/libtorch_cpu.so" "${PLUMB_TORCH_DIR}/lib/libc10.so")
target_link_options(plumb_torch INTERFACE
  "LINKER:--disable-new-dtags" "LINKER:-rpath,${PLUMB_TORCH_DIR}/lib")
foreach(_dir ${_nvidia_libs})
  target_link_options(plumb_torch INTERFACE "LINKER:-rpath,${_dir}" "LINKER:-rpath-link,${_dir}")
endforeach()
target_link_options(plumb_torch INTERFACE "LINKER:--allow-shlib-undefined")
