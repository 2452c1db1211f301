# The tests of the kernels: programs that use whatever libcuda.so.1 they find. Here it is the fake one,
# with the kernels compiled for the emulation; on a machine with a GPU the same programs run with the
# driver's.

if(cuda_images)
  file(GLOB kernel_sources CONFIGURE_DEPENDS csrc/cuda/kernels/*.cu)
  set_source_files_properties(${kernel_sources} PROPERTIES LANGUAGE CXX)
  set_source_files_properties(tests/cuda/emulation.cc PROPERTIES COMPILE_OPTIONS -fno-sanitize=all)
  add_library(fake_cuda SHARED tests/cuda/emulation.cc tests/cuda/fake_cuda.cc ${kernel_sources})
  set_target_properties(fake_cuda PROPERTIES OUTPUT_NAME cuda SOVERSION 1
    LIBRARY_OUTPUT_DIRECTORY fake)
  target_include_directories(fake_cuda PRIVATE csrc tests/cuda)
  # (GCC cannot see that what a loop has skipped is not read by the next.)
  target_compile_options(fake_cuda PRIVATE -Wall -Wextra -Wno-maybe-uninitialized -ffp-contract=off)
  target_link_libraries(fake_cuda PRIVATE Threads::Threads)
  if(RONDE_WERROR)
    target_compile_options(fake_cuda PRIVATE -Werror)
  endif()
  if(RONDE_SANITIZE)
    target_compile_options(fake_cuda PRIVATE -fsanitize=${RONDE_SANITIZE}
      -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
    target_link_options(fake_cuda PRIVATE -fsanitize=${RONDE_SANITIZE})
  endif()

  file(GLOB cuda_tests CONFIGURE_DEPENDS tests/cuda/*_test.cc)
  foreach(source ${cuda_tests})
    get_filename_component(name ${source} NAME_WE)
    add_executable(cuda_${name} ${source})
    target_include_directories(cuda_${name} PRIVATE tests/native)
    target_link_libraries(cuda_${name} PRIVATE ronde_core)
    add_dependencies(cuda_${name} fake_cuda)
    foreach(order forward backward 1)
      add_test(NAME cuda_${name}_${order} COMMAND cuda_${name})
      set_tests_properties(cuda_${name}_${order} PROPERTIES ENVIRONMENT
        "LD_LIBRARY_PATH=${CMAKE_CURRENT_BINARY_DIR}/fake;EMULATION_ORDER=${order};FAKE_CUDA_DELAYS=1")
    endforeach()
  endforeach()
endif()
