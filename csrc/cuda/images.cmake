# Compiles the kernels for GPUs, each file for each architecture, and embeds them (images.cc).
# compile.py does it with NVRTC, which is found if it is installed for this Python. RONDE_CUBINS is a folder
# of kernels that were compiled elsewhere, to take instead.

set(cuda_images "")
if(RONDE_CUBINS)
  file(GLOB cuda_images ${RONDE_CUBINS}/*.sm_*.cubin)
elseif(NOT RONDE_CUDA STREQUAL "OFF")
  set(compile ${CMAKE_CURRENT_LIST_DIR}/compile.py)
  execute_process(COMMAND ${Python_EXECUTABLE} ${compile} --find
    OUTPUT_VARIABLE nvrtc OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  if(nvrtc)
    message(STATUS "Kernels for GPUs: compiled by ${nvrtc}")
    file(GLOB kernel_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/kernels/*.cu)
    file(GLOB kernel_headers CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/kernels/*.h)
    foreach(source ${kernel_sources})
      get_filename_component(name ${source} NAME_WE)
      foreach(architecture ${RONDE_CUDA_ARCHITECTURES})
        set(cubin ${CMAKE_CURRENT_BINARY_DIR}/${name}.sm_${architecture}.cubin)
        add_custom_command(OUTPUT ${cubin} VERBATIM
          COMMAND ${Python_EXECUTABLE} ${compile} ${source} --nvrtc ${nvrtc}
            --architecture ${architecture} --output ${cubin}
          DEPENDS ${source} ${kernel_headers} ${compile}
          COMMENT "Compiling ${name}.cu for sm_${architecture}")
        list(APPEND cuda_images ${cubin})
      endforeach()
    endforeach()
  elseif(RONDE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "RONDE_CUDA=ON needs NVRTC: install nvidia-cuda-nvrtc-cu12==12.9.* for "
      "${Python_EXECUTABLE}")
  else()
    message(STATUS "Kernels for GPUs: none, as nvidia-cuda-nvrtc-cu12 is not installed")
  endif()
endif()

set(image_lines "")
foreach(cubin ${cuda_images})
  string(REGEX REPLACE ".*/([a-z_]+)[.]sm_([0-9]+)[.]cubin" "\\1, \\2" image ${cubin})
  string(APPEND image_lines "RONDE_CUDA_IMAGE(${image}, \"${cubin}\")\n")
endforeach()
file(CONFIGURE OUTPUT cuda_images.inc CONTENT "${image_lines}" @ONLY)
# (No other file is compiled in another way because of where it is built.)
set_source_files_properties(csrc/cuda/images.cc PROPERTIES OBJECT_DEPENDS "${cuda_images}"
  INCLUDE_DIRECTORIES ${CMAKE_CURRENT_BINARY_DIR})
