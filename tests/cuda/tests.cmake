# The tests of the kernels: programs that use whatever libcuda.so.1 they find. Here it is the fake one,
# with the kernels compiled for the emulation; on a machine with a GPU the same programs run with the
# driver's. The same goes for libnccl.so.2.

function(fake_library target name version)
  set_target_properties(${target} PROPERTIES OUTPUT_NAME ${name} SOVERSION ${version}
    LIBRARY_OUTPUT_DIRECTORY fake)
  target_include_directories(${target} PRIVATE csrc tests/cuda)
  # (GCC cannot see that what a loop has skipped is not read by the next.)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wno-maybe-uninitialized -ffp-contract=off)
  target_link_libraries(${target} PRIVATE Threads::Threads ${CMAKE_DL_LIBS})
  if(RONDE_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(RONDE_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${RONDE_SANITIZE}
      -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
    target_link_options(${target} PRIVATE -fsanitize=${RONDE_SANITIZE})
  endif()
endfunction()

if(cuda_images)
  file(GLOB kernel_sources CONFIGURE_DEPENDS csrc/cuda/kernels/*.cu)
  set_source_files_properties(${kernel_sources} PROPERTIES LANGUAGE CXX)
  set_source_files_properties(tests/cuda/emulation.cc PROPERTIES COMPILE_OPTIONS -fno-sanitize=all)
  add_library(fake_cuda SHARED tests/cuda/emulation.cc tests/cuda/fake_cuda.cc ${kernel_sources})
  fake_library(fake_cuda cuda 1)

  set(fake_nccl_sources tests/cuda/fake_nccl.cc tests/cuda/fake_nccl_calls.cc
    tests/cuda/fake_nccl_world.cc)
  add_library(fake_nccl SHARED ${fake_nccl_sources})
  fake_library(fake_nccl nccl 2)
  add_library(fake_old_nccl SHARED ${fake_nccl_sources})
  fake_library(fake_old_nccl nccl 2)
  set_target_properties(fake_old_nccl PROPERTIES LIBRARY_OUTPUT_DIRECTORY fake/old)
  target_compile_definitions(fake_old_nccl PRIVATE FAKE_NCCL_OLD)

  set(fakes ${CMAKE_CURRENT_BINARY_DIR}/fake)
  file(GLOB cuda_tests CONFIGURE_DEPENDS tests/cuda/*_test.cc)
  foreach(source ${cuda_tests})
    get_filename_component(name ${source} NAME_WE)
    add_executable(cuda_${name} ${source})
    target_include_directories(cuda_${name} PRIVATE tests/native)
    target_link_libraries(cuda_${name} PRIVATE ronde_core)
    add_dependencies(cuda_${name} fake_cuda fake_nccl fake_old_nccl)
    foreach(order forward backward 1)
      add_test(NAME cuda_${name}_${order} COMMAND cuda_${name})
      set_tests_properties(cuda_${name}_${order} PROPERTIES ENVIRONMENT
        "LD_LIBRARY_PATH=${fakes};EMULATION_ORDER=${order};FAKE_CUDA_DELAYS=1")
    endforeach()
  endforeach()

  add_test(NAME cuda_nccl_test_devices COMMAND cuda_nccl_test)
  add_test(NAME cuda_nccl_test_old COMMAND cuda_nccl_test --library ${fakes}/old/libnccl.so.2)
  add_test(NAME cuda_nccl_test_other COMMAND cuda_nccl_test --library ${fakes}/libcuda.so.1
    --missing "it has no ncclGetVersion")
  set_tests_properties(cuda_nccl_test_devices cuda_nccl_test_old cuda_nccl_test_other PROPERTIES
    ENVIRONMENT "LD_LIBRARY_PATH=${fakes};FAKE_CUDA_DEVICES=3")
endif()
