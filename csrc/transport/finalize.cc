#include "transport/finalize.h"

#include <elf.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace ronde {
namespace {

#if defined(__x86_64__)
constexpr unsigned kJumpSlot = R_X86_64_JUMP_SLOT, kGlobalData = R_X86_64_GLOB_DAT;
#elif defined(__aarch64__)
constexpr unsigned kJumpSlot = R_AARCH64_JUMP_SLOT, kGlobalData = R_AARCH64_GLOB_DAT;
#else
constexpr unsigned kJumpSlot = ~0u, kGlobalData = ~0u;  // nothing is found
#endif

// Both, in case that a version of mpi4py does not ask before it acts.
int finalized(int* flag) {
  *flag = 1;
  return 0;  // MPI_SUCCESS everywhere
}
int finalize() { return 0; }

struct Slot {
  void** address;
  void* replacement;
};

std::vector<Slot>& slots() {
  static auto& slots = *new std::vector<Slot>;  // never destroyed
  return slots;
}

/// The parts of a loaded file that its dynamic linker works with.
class Linked {
 public:
  explicit Linked(const dl_phdr_info& info) : base_(info.dlpi_addr) {
    for (int i = 0; i < info.dlpi_phnum; ++i) {
      if (info.dlpi_phdr[i].p_type != PT_DYNAMIC) continue;
      dynamic_ = reinterpret_cast<const ElfW(Dyn)*>(base_ + info.dlpi_phdr[i].p_vaddr);
    }
  }

  void find(const char* name, void* replacement) const {
    for (const auto& [table, bytes] : {std::pair{DT_JMPREL, DT_PLTRELSZ}, {DT_RELA, DT_RELASZ}}) {
      const auto* relocation = reinterpret_cast<const ElfW(Rela)*>(address(table));
      const std::size_t count = relocation ? value(bytes) / sizeof *relocation : 0;
      for (std::size_t i = 0; i < count; ++i) {
        const auto type = ELF64_R_TYPE(relocation[i].r_info);
        if (type != kJumpSlot && type != kGlobalData) continue;
        if (std::strcmp(symbol(ELF64_R_SYM(relocation[i].r_info)), name) != 0) continue;
        slots().push_back({reinterpret_cast<void**>(base_ + relocation[i].r_offset), replacement});
      }
    }
  }

 private:
  ElfW(Addr) value(ElfW(Sxword) tag) const {
    for (const auto* entry = dynamic_; entry && entry->d_tag != DT_NULL; ++entry)
      if (entry->d_tag == tag) return entry->d_un.d_val;
    return 0;
  }

  /// glibc has made addresses of what the file says; other C libraries leave it as it is.
  ElfW(Addr) address(ElfW(Sxword) tag) const {
    const auto found = value(tag);
    return found && found < base_ ? base_ + found : found;
  }

  const char* symbol(std::size_t index) const {
    const auto* symbols = reinterpret_cast<const ElfW(Sym)*>(address(DT_SYMTAB));
    return reinterpret_cast<const char*>(address(DT_STRTAB)) + symbols[index].st_name;
  }

  const ElfW(Addr) base_;
  const ElfW(Dyn) * dynamic_ = nullptr;
};

}  // namespace

void find_finalize(const std::string& extension) {
  if (!slots().empty()) return;
  const auto look = [](dl_phdr_info* info, std::size_t, void* wanted) {
    if (*static_cast<const std::string*>(wanted) != info->dlpi_name) return 0;
    const Linked linked(*info);
    linked.find("MPI_Finalized", reinterpret_cast<void*>(&finalized));
    linked.find("MPI_Finalize", reinterpret_cast<void*>(&finalize));
    return 1;
  };
  auto name = extension;
  dl_iterate_phdr(look, &name);
}

void skip_finalize() {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  for (const auto& [address, replacement] : slots()) {
    // The linker may have made the page read only. It stays writable in the child.
    auto* start = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(address) & ~(page - 1));
    if (mprotect(start, page, PROT_READ | PROT_WRITE) == 0) *address = replacement;
  }
}

}  // namespace ronde
