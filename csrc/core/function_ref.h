// A function that is called before the call that it is passed to returns. As std::function, but
// what the function captures stays where it is.
#pragma once

#include <utility>

namespace ronde {

template <class Signature>
class FunctionRef;

template <class Result, class... Arguments>
class FunctionRef<Result(Arguments...)> {
 public:
  template <class Function>
  FunctionRef(const Function& function)
      : function_(&function), call_([](const void* object, Arguments... arguments) -> Result {
          return (*static_cast<const Function*>(object))(std::forward<Arguments>(arguments)...);
        }) {}

  Result operator()(Arguments... arguments) const {
    return call_(function_, std::forward<Arguments>(arguments)...);
  }

 private:
  const void* const function_;
  Result (*const call_)(const void* object, Arguments... arguments);
};

}  // namespace ronde
