# The tests of the kernels: programs that use whatever libcuda.so.1 they find. With ctest it is a fake one,
# with the kernels compiled for the emulation; on a machine with a GPU the same programs run with the
# driver's (benchmarks/gpu/check.py). The same goes for libnccl.so.2.
#
# The fakes are built as they are and with each sanitizer, so a build of the core without any suffices to
# test the kernels under all: the sanitizer's library is then preloaded. (Only for programs with several
# threads ThreadSanitizer must know the core too: `make sanitize` runs those of NCCL and of collectives under it.)

if(NOT cuda_images OR NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  return()  # the emulation switches threads by hand
endif()

file(GLOB kernel_sources CONFIGURE_DEPENDS csrc/cuda/kernels/*.cu)
# (GCC cannot see that what a loop has skipped is not read by the next.)
set_source_files_properties(${kernel_sources} PROPERTIES LANGUAGE CXX
  COMPILE_OPTIONS -Wno-maybe-uninitialized)
set_source_files_properties(tests/cuda/emulation.cc PROPERTIES COMPILE_OPTIONS -fno-sanitize=all)

# build/fake/libcuda.so.1, build/fake-thread/libcuda.so.1, ... The emulation takes its time for switching
# threads, so more optimisation would only compile longer.
function(add_fake name version folder sanitizer)
  add_library(${folder}_${name} SHARED ${ARGN})
  set_target_properties(${folder}_${name} PROPERTIES OUTPUT_NAME ${name} SOVERSION ${version}
    LIBRARY_OUTPUT_DIRECTORY ${folder})
  target_include_directories(${folder}_${name} PRIVATE csrc tests/cuda)
  target_compile_options(${folder}_${name} PRIVATE -Wall -Wextra -ffp-contract=off -O1)
  target_link_libraries(${folder}_${name} PRIVATE Threads::Threads ${CMAKE_DL_LIBS})
  if(RONDE_WERROR)
    target_compile_options(${folder}_${name} PRIVATE -Werror)
  endif()
  if(sanitizer)
    target_compile_options(${folder}_${name} PRIVATE -fsanitize=${sanitizer} -g
      -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(${folder}_${name} PRIVATE -fsanitize=${sanitizer})
  endif()
  add_dependencies(fakes ${folder}_${name})
endfunction()

set(fake_nccl_sources tests/cuda/fake_nccl.cc tests/cuda/fake_nccl_calls.cc
  tests/cuda/fake_nccl_remote.cc tests/cuda/fake_nccl_world.cc)
add_custom_target(fakes)
function(add_fakes folder sanitizer)
  add_fake(cuda 1 ${folder} "${sanitizer}"
    tests/cuda/emulation.cc tests/cuda/fake_cuda.cc ${kernel_sources})
  add_fake(nccl 2 ${folder} "${sanitizer}" ${fake_nccl_sources})
endfunction()

# Runs each program against the fakes of a folder, once for each order of the threads of a block. (Those of
# collectives once: on the order depend only kernels, which have tests of their own.)
function(add_cuda_tests folder preload)
  set(of_collectives "nccl|groups|compressed|slices")
  if(folder STREQUAL "fake-thread")
    list(FILTER cuda_tests EXCLUDE REGEX ${of_collectives})
  endif()
  foreach(name ${cuda_tests})
    set(orders ${ARGN})
    if(name MATCHES ${of_collectives})
      list(GET ARGN 0 orders)
    endif()
    foreach(order ${orders})
      add_test(NAME cuda_${name}_${folder}_${order} COMMAND cuda_${name})
      set_tests_properties(cuda_${name}_${folder}_${order} PROPERTIES ENVIRONMENT
        "LD_LIBRARY_PATH=${CMAKE_CURRENT_BINARY_DIR}/${folder};LD_PRELOAD=${preload};\
ASAN_OPTIONS=detect_leaks=0;TSAN_OPTIONS=suppressions=${CMAKE_CURRENT_SOURCE_DIR}/tests/cuda/thread.supp;\
EMULATION_ORDER=${order};FAKE_CUDA_DELAYS=1")
    endforeach()
  endforeach()
endfunction()

add_executable(cuda_bench benchmarks/gpu/kernels.cc)
target_link_libraries(cuda_bench PRIVATE ronde_core)
add_custom_target(cuda_programs DEPENDS cuda_bench)
file(GLOB test_sources CONFIGURE_DEPENDS tests/cuda/*_test.cc)
set(cuda_tests "")
foreach(source ${test_sources})
  get_filename_component(name ${source} NAME_WE)
  list(APPEND cuda_tests ${name})
  add_executable(cuda_${name} ${source})
  target_include_directories(cuda_${name} PRIVATE tests/native)
  target_link_libraries(cuda_${name} PRIVATE ronde_core)
  add_dependencies(cuda_programs cuda_${name})
endforeach()

if(RONDE_SANITIZE)
  add_fakes(fake "${RONDE_SANITIZE}")
  add_cuda_tests(fake "" forward)
else()
  foreach(sanitizer thread address) # which take longest, so they begin
    string(SUBSTRING ${sanitizer} 0 1 letter)
    execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=lib${letter}san.so
      OUTPUT_VARIABLE library OUTPUT_STRIP_TRAILING_WHITESPACE)
    add_fakes(fake-${sanitizer} ${sanitizer})
    add_cuda_tests(fake-${sanitizer} ${library} backward)
  endforeach()
  add_fakes(fake "")
  add_cuda_tests(fake "" forward backward 1)
  # Of NCCL: on several devices; one of before 2.14; a library that is another.
  add_fake(nccl 2 fake-old "" ${fake_nccl_sources})
  target_compile_definitions(fake-old_nccl PRIVATE FAKE_NCCL_OLD)
  set(fakes ${CMAKE_CURRENT_BINARY_DIR})
  add_test(NAME cuda_nccl_test_devices COMMAND cuda_nccl_test)
  add_test(NAME cuda_nccl_test_old COMMAND cuda_nccl_test
    --library ${fakes}/fake-old/libnccl.so.2)
  add_test(NAME cuda_nccl_test_other COMMAND cuda_nccl_test --library ${fakes}/fake/libcuda.so.1
    --missing "it has no ncclGetVersion")
  set_tests_properties(cuda_nccl_test_devices cuda_nccl_test_old cuda_nccl_test_other PROPERTIES
    ENVIRONMENT "LD_LIBRARY_PATH=${fakes}/fake;FAKE_CUDA_DEVICES=3")
endif()
