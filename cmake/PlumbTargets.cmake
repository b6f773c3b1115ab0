# plumb_library(quant SRCS a.cc b.cc DEPS plumb::common absl::status)   -> target plumb_quant, alias plumb::quant
function(plumb_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS;PRIVATE_DEPS" ${ARGN})
  if(ARG_SRCS)
    add_library(plumb_${name} STATIC ${ARG_SRCS})
    target_link_libraries(plumb_${name} PUBLIC plumb::options ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
  else()
    add_library(plumb_${name} INTERFACE)
    target_link_libraries(plumb_${name} INTERFACE plumb::options ${ARG_DEPS})
  endif()
  add_library(plumb::${name} ALIAS plumb_${name})
endfunction()

# plumb_binary(plumb-judge SRCS main.cc DEPS plumb::judge_service)   -> build/bin/plumb-judge
function(plumb_binary name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE plumb::options ${ARG_DEPS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
endfunction()

# plumb_test(quant_test SRCS x_test.cc DEPS plumb::quant [LABELS unit])
# One executable; gtest cases run in one ctest entry (start-up of hundreds of processes costs more than it tells).
function(plumb_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SRCS;DEPS;LABELS;ENVIRONMENT" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE plumb::options ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}"
                       ENVIRONMENT "PLUMB_BIN=${PROJECT_BINARY_DIR}/bin;${ARG_ENVIRONMENT}")
endfunction()

# Adds every direct subfolder of DIR that has a CMakeLists.txt.
macro(plumb_add_subdirectories dir)
  file(GLOB _lists CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR}
       ${CMAKE_CURRENT_SOURCE_DIR}/${dir}/*/CMakeLists.txt)
  foreach(_list ${_lists})
    get_filename_component(_sub ${_list} DIRECTORY)
    add_subdirectory(${_sub})
  endforeach()
endmacro()
