#include "bindings/call_site.h"

#include <Python.h>
#include <frameobject.h>

#include <map>
#include <string_view>
#include <utility>

namespace ronde {
namespace {

// Beyond that all are forgotten: a program that makes code as it runs would fill the memory.
constexpr std::size_t kMostSites = 4096;

int instruction_of(PyFrameObject* frame) {
#if PY_VERSION_HEX >= 0x030B0000
  return PyFrame_GetLasti(frame);
#else
  return frame->f_lasti;
#endif
}

/// What is in UTF-8, or nothing.
std::string text_of(PyObject* text) {
  const char* bytes = PyUnicode_AsUTF8(text);
  if (!bytes) PyErr_Clear();
  return bytes ? bytes : "?";
}

constexpr std::string_view kTorch = "-packages/torch/";  // in the paths of its files

/// The folder of the package, from the module that is being used: it is in sys.modules.
std::string find_package() {
  std::string folder;
  PyObject* const module = PyImport_ImportModule("ronde");
  PyObject* const file = module ? PyObject_GetAttrString(module, "__file__") : nullptr;
  if (file) folder = text_of(file);
  PyErr_Clear();
  Py_XDECREF(file);
  Py_XDECREF(module);
  return folder.substr(0, folder.rfind('/') + 1);
}

/// Of an instruction of a code object, which lives as long as the entry. To find the line of an
/// instruction takes longer than a short call.
struct Sites {
  const std::string package = find_package();
  std::map<PyCodeObject*, bool> of_libraries;
  std::map<std::pair<PyCodeObject*, int>, std::string> texts;

  void forget() {
    texts.clear();
    for (const auto& [code, own] : std::exchange(of_libraries, {})) Py_DECREF(code);
  }

  bool in_library(PyCodeObject* code) {
    if (const auto found = of_libraries.find(code); found != of_libraries.end())
      return found->second;
    if (of_libraries.size() >= kMostSites) forget();
    Py_INCREF(code);
    const auto file = text_of(code->co_filename);
    const bool own = !package.empty() && file.starts_with(package);
    return of_libraries[code] = own || file.find(kTorch) != std::string::npos;
  }

  const std::string& text(PyCodeObject* code, PyFrameObject* frame) {
    if (texts.size() >= kMostSites) texts.clear();
    auto& text = texts[{code, instruction_of(frame)}];
    if (text.empty())
      text = text_of(code->co_filename) + ":" + std::to_string(PyFrame_GetLineNumber(frame));
    return text;
  }
};

}  // namespace

const std::string& call_site() {
  static auto& sites = *new Sites;  // never destroyed: the interpreter may have ended
  static const std::string nowhere;
  PyFrameObject* frame = PyThreadState_GetFrame(PyThreadState_Get());
  const std::string* found = &nowhere;
  while (frame && found == &nowhere) {
    PyCodeObject* const code = PyFrame_GetCode(frame);
    if (!sites.in_library(code)) found = &sites.text(code, frame);
    Py_DECREF(code);
    PyFrameObject* const caller = PyFrame_GetBack(frame);
    Py_DECREF(frame);
    frame = caller;
  }
  Py_XDECREF(frame);
  return *found;
}

}  // namespace ronde
