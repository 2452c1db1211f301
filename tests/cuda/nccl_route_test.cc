// Collectives of arrays on GPUs over NCCL, against those of the host.
#include "collective/nccl_route.h"

#include <unistd.h>

#include <cstdio>

#include "nccl_job.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;
using namespace ronde::cuda::testing;

void check_thin() {
  Job{}.run(2, [](Member& me) {
    const std::vector<float> mine(1000, static_cast<float>(me.rank + 1));
    auto array = me.array(std::as_bytes(std::span(mine)));
    const Piece piece{array.buffer(), array.buffer()};
    CHECK(allreduce(*me.set, named("allreduce"), {&piece, 1}));
    const auto bytes = array.bytes();
    for (std::size_t i = 0; i < mine.size(); ++i) {
      float value = 0;
      std::memcpy(&value, &bytes[i * sizeof value], sizeof value);
      CHECK(value == 3.0f);
    }
  });
}

}  // namespace

int main() {
  setenv("FAKE_CUDA_DEVICES", "8", 1);  // of the fake driver
  if (!Nccl::missing().empty() || !Driver::missing().empty()) {
    std::printf("nothing to try: %s %s\n", Nccl::missing().c_str(), Driver::missing().c_str());
    return 0;
  }
  alarm(300);  // rather than hang
  check_thin();
}
