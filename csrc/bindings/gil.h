// The one way to let go of the GIL and to take it again.
//
// Before Python 3.14 a thread that takes the GIL when the interpreter is ending is ended by
// pthread_exit, which unwinds its stack. That must not get out of a destructor: the process would
// abort. So such a thread stops where it is, as it does in later versions of Python.
#pragma once

#include <Python.h>
#include <cxxabi.h>
#include <unistd.h>

#include <memory>

namespace ronde {

/// `take()`, whose thread stops for good if the interpreter is ending.
template <class Take>
auto take_gil_by(Take take) {
  try {
    return take();
  } catch (const abi::__forced_unwind&) {
    while (true) pause();  // to leave the handler would abort as well
  }
}

/// Other threads run while it lives.
class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() {
    take_gil_by([this] { PyEval_RestoreThread(state_); });
  }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* const state_;
};

/// What the body gives, while other threads run.
template <class Body>
auto without_gil(Body body) {
  const WithoutGil release;
  return body();
}

/// A T that is destroyed while other threads run, whoever lets go of it last: it may wait for a
/// GPU.
template <class T>
std::shared_ptr<T> freed_without_gil(std::unique_ptr<T> object) {
  return {object.release(), [](T* last) {
            if (PyGILState_GetThisThreadState() && PyGILState_Check()) {
              without_gil([last] { delete last; });
            } else {
              delete last;
            }
          }};
}

/// For a hook of the core, which runs while the GIL is free.
class WithGil {
 public:
  WithGil() : state_(take_gil_by([] { return PyGILState_Ensure(); })) {}
  ~WithGil() { PyGILState_Release(state_); }
  WithGil(const WithGil&) = delete;
  WithGil& operator=(const WithGil&) = delete;

 private:
  const PyGILState_STATE state_;
};

}  // namespace ronde
