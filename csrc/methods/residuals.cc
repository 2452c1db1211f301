#include "methods/residuals.h"

#include <algorithm>

#include "core/error.h"
#include "core/text.h"

namespace ronde {
namespace {

Parts parts_of(const Bucket& bucket) {
  Parts parts;
  for (const auto& array : bucket.arrays)
    parts.emplace_back(array.parameter->name, array.input.size());
  return parts;
}

/// As Python shows a text.
std::string quoted(const std::string& name) {
  const char quote = name.find('\'') == name.npos || name.find('"') != name.npos ? '\'' : '"';
  return quote + printable(name) + quote;
}

void add(std::span<float> to, std::span<const float> more) {
  for (std::size_t i = 0; i < more.size(); ++i) to[i] += more[i];
}

std::vector<float> copy_of(const Residuals::Residual& residual) {
  const auto kept = residual.kept();
  std::vector<float> values(kept.begin(), kept.end());
  if (residual.unplaced) add(values, *residual.unplaced);
  return values;
}

[[noreturn]] void refuse_meanwhile() {
  throw Error("a call with these residuals is under way: wait for it first");
}

}  // namespace

std::shared_ptr<const void> Residuals::use(std::span<const Parameters> buckets) {
  const std::lock_guard lock(mutex_);
  std::set<std::string_view> names;
  for (const auto& bucket : buckets) {
    for (const auto* parameter : bucket) {
      const auto& name = parameter->name;
      if (name.empty())
        throw ArgumentError("error feedback needs a name, under which the residual is kept");
      if (!names.insert(name).second)
        throw ArgumentError("two arrays of this call have the name " + quoted(name) +
                            ", so they would share one residual");
      if (in_use(name))
        throw ArgumentError("a call with the residual of " + quoted(name) +
                            " is under way: wait for it first");
      const auto* const known = find(name);
      if (known && known->elements != parameter->elements)
        throw ArgumentError("the residual of " + quoted(name) + " has " +
                            std::to_string(known->elements) + " elements, the array " +
                            std::to_string(parameter->elements));
    }
  }
  const auto mine = uses_.insert(uses_.end(), std::move(names));
  const auto end = [self = shared_from_this(), mine](const void*) {
    const std::lock_guard lock(self->mutex_);
    self->uses_.erase(mine);
  };
  return {&*mine, end};
}

bool Residuals::in_use(std::string_view name) const {
  return std::ranges::any_of(uses_, [&](const auto& names) { return names.contains(name); });
}

void Residuals::require_unused() const {
  if (!uses_.empty()) refuse_meanwhile();
}

Residuals::Found Residuals::of(Ranks& ranks, const Bucket& bucket, bool per_rank) {
  const std::lock_guard lock(mutex_);
  const auto where = Placement::of(ranks.set);
  state_.where = where;
  const bool whole = per_rank || (where.local_size == 1 && where.size > 1);
  auto parts = parts_of(bucket);
  const auto residuals = entries(parts);
  const auto known = vectors_.find(parts);
  const bool as_before = known != vectors_.end() && known->second.use->where == where &&
                         known->second.use->whole == whole &&
                         std::all_of(residuals.begin(), residuals.end(), [&](const auto* residual) {
                           return residual->use == known->second.use;
                         });
  const auto now = as_before ? known->second : place({where, whole, std::move(parts)}, residuals);
  Found found{now.vector, {}, {}};
  for (auto* residual : residuals) {
    residual->averaged = bucket.averages;
    auto more = std::exchange(residual->unplaced, {}).value_or(std::vector<float>());
    if (whole && !more.empty()) add(residual->kept(), std::exchange(more, {}));
    found.added.push_back(std::move(more));
  }
  // On one machine nothing is compressed but by methods that are per rank: no GPU need hold it.
  if (!bucket.device.is_gpu() || whole || !ranks.on_one_machine())
    found.values = ranks.values_of(*found.vector, bucket.device);
  return found;
}

/// Makes a vector of these residuals, which leave those in which they were.
Residuals::Known Residuals::place(Use wanted, std::span<Residual* const> residuals) {
  const auto use = std::make_shared<const Use>(std::move(wanted));
  std::set<std::string_view> names;
  std::size_t total = 0;
  for (const auto& [name, elements] : use->parts) {
    names.insert(name);
    total += elements;
  }
  std::erase_if(vectors_, [&](const auto& known) {
    return std::any_of(known.first.begin(), known.first.end(),
                       [&](const auto& part) { return names.contains(part.first); });
  });
  const auto vector = std::make_shared<Vector>(std::vector<float>(total));
  const auto values = vector->on_host();
  std::size_t offset = 0;
  for (auto* residual : residuals) {
    if (residual->vector) {
      const auto before = residual->kept();
      if (use->whole || (residual->use && *residual->use == *use)) {
        std::ranges::copy(before, values.subspan(offset).begin());
      } else {
        residual->unplaced = copy_of(*residual);
      }
    }
    residual->vector = vector;
    residual->offset = std::exchange(offset, offset + residual->elements);
    residual->use = use;
  }
  return vectors_[use->parts] = {vector, use};
}

std::vector<std::vector<float>> Residuals::taken(const Bucket& bucket) {
  const std::lock_guard lock(mutex_);
  std::vector<std::vector<float>> found;
  for (auto* residual : entries(parts_of(bucket))) {
    found.emplace_back();
    if (!residual->vector) continue;
    auto left = copy_of(*residual);
    std::ranges::fill(residual->kept(), 0.0f);
    residual->unplaced.reset();
    if (std::any_of(left.begin(), left.end(), [](float x) { return x != 0; }))
      found.back() = std::move(left);
  }
  return found;
}

std::vector<std::string> Residuals::names() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> names;
  for (const auto& residual : state_.residuals) {
    if (residual.vector) names.push_back(residual.name);
  }
  return names;
}

std::optional<std::vector<float>> Residuals::read(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  if (in_use(name)) refuse_meanwhile();
  const auto* const residual = find(name);
  if (!residual || !residual->vector) return {};
  return copy_of(*residual);
}

void Residuals::rescale(float factor) {
  const std::lock_guard lock(mutex_);
  require_unused();
  for (auto& residual : state_.residuals) {
    if (residual.vector) {
      for (auto& value : residual.kept()) value *= factor;
    }
    if (residual.unplaced) {
      for (auto& value : *residual.unplaced) value *= factor;
    }
  }
}

Residuals::State Residuals::state() const {
  const std::lock_guard lock(mutex_);
  require_unused();
  State copy = state_;
  for (auto& residual : copy.residuals) {
    if (!residual.vector) continue;
    const auto kept = residual.kept();
    residual.vector = std::make_shared<Vector>(std::vector<float>(kept.begin(), kept.end()));
    residual.offset = 0;
  }
  return copy;
}

void Residuals::load(State state) {
  const std::lock_guard lock(mutex_);
  require_unused();
  state_ = std::move(state);
  vectors_.clear();
  numbers_.clear();
  for (std::size_t i = 0; i < state_.residuals.size(); ++i)
    numbers_.emplace(state_.residuals[i].name, i);
}

const Residuals::Residual* Residuals::find(const std::string& name) const {
  const auto number = numbers_.find(name);
  return number == numbers_.end() ? nullptr : &state_.residuals[number->second];
}

/// Of these parameters; new ones have no vector yet.
std::vector<Residuals::Residual*> Residuals::entries(const Parts& parts) {
  std::vector<std::size_t> numbers;
  for (const auto& [name, elements] : parts) {
    const auto [number, is_new] = numbers_.emplace(name, state_.residuals.size());
    numbers.push_back(number->second);
    if (!is_new) continue;
    state_.residuals.emplace_back();
    state_.residuals.back().name = name;
    state_.residuals.back().elements = elements;
  }
  std::vector<Residual*> found;
  for (const auto number : numbers) found.push_back(&state_.residuals[number]);
  return found;
}

}  // namespace ronde
