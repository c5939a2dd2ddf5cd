"""Tensors that say they are on a GPU and compute on the CPU, to find what mixes devices.

    with PretendCuda():
        model = to_cuda(model)
        model(image.cuda())          # raises MixedDevices where a tensor of the CPU takes part

``FakeTensorMode`` has no values, and the operators look at them (``nonzero``, ``item``). Here each
tensor holds one of the CPU. What CUDA allows beside its own tensors is allowed: numbers (tensors
without dimensions), indices, and copies.
"""

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

CUDA = torch.device('cuda', 0)
MAY_MIX = {'copy_', '_to_copy', 'index', 'index_put', 'index_put_', '_index_put_impl_'}


class MixedDevices(RuntimeError):
    """An operation was given tensors of both devices."""


class CudaTensor(Tensor):
    """A tensor of the CPU that says it is on a GPU."""

    @staticmethod
    def __new__(cls, held: Tensor) -> 'CudaTensor':
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=held.device,
        )
        made.held = held
        return made

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def get_device(self) -> int:
        return 0

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __array__(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def cpu(self, *args, **kwargs) -> Tensor:
        return to_cpu(self)

    def cuda(self, *args, **kwargs) -> Tensor:
        return self

    def tolist(self):
        return self.held.tolist()

    def __repr__(self) -> str:
        return f'CudaTensor({self.held})'

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        flat, _ = tree_flatten((args, kwargs or {}))
        name = func.overloadpacket.__name__
        if name not in MAY_MIX:
            for one in flat:
                if isinstance(one, Tensor) and not isinstance(one, CudaTensor) and one.dim():
                    raise MixedDevices(f'{func}: a tensor of the CPU, {tuple(one.shape)}')
        if name == 'copy_' and not isinstance(args[0], CudaTensor):
            return args[0].copy_(args[1].held)
        if name.startswith(('index', '_index')) and not isinstance(args[0], CudaTensor):
            raise MixedDevices(f'{func}: a tensor of the CPU with indices on the GPU')
        found = func(*tree_map(hold, args), **tree_map(hold, kwargs or {}))
        if func._schema.is_mutable and isinstance(found, Tensor):
            for one in flat:
                if isinstance(one, CudaTensor) and one.held is found:
                    return one
        return tree_map(wrap, found)


def hold(value):
    """Return the tensor that computes."""
    if isinstance(value, torch.device):
        return torch.device('cpu')
    return value.held if isinstance(value, CudaTensor) else value


def wrap(value):
    """Return a tensor as one of the GPU."""
    return CudaTensor(value) if type(value) is Tensor else value


class MoveToCuda(torch.autograd.Function):
    """A tensor of the CPU -> the same on the GPU."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return CudaTensor(x.detach().clone())

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient.held


class MoveToCpu(torch.autograd.Function):
    """The inverse."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.held.detach().clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return CudaTensor(gradient)


def to_cuda(value):
    """Return a tensor on the GPU; change a module so that all it holds is there."""
    if isinstance(value, nn.Module):
        for module in value.modules():
            for name, one in module._parameters.items():
                if one is not None:
                    module._parameters[name] = nn.Parameter(
                        CudaTensor(one.detach().clone()), one.requires_grad
                    )
            for name, one in module._buffers.items():
                if one is not None:
                    module._buffers[name] = CudaTensor(one.detach().clone())
        return value
    return value if isinstance(value, CudaTensor) else MoveToCuda.apply(value)


def to_cpu(value: Tensor) -> Tensor:
    """Return a tensor on the CPU."""
    return MoveToCpu.apply(value) if isinstance(value, CudaTensor) else value


class PretendCuda(TorchFunctionMode):
    """Have what asks for the device ``cuda`` get such tensors."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, '__name__', '')
        if func is Tensor.cuda:
            return to_cuda(args[0])
        if func in (Tensor.backward, torch.autograd.grad):
            return self.differentiate(func, *args, **kwargs)
        if func is Tensor.new_tensor and isinstance(args[0], CudaTensor) and 'device' not in kwargs:
            return CudaTensor(func(args[0].held, *args[1:], **kwargs))
        if func in (Tensor.to, Tensor.type_as) and isinstance(args[0], Tensor):
            return self.convert(func, args, kwargs)
        wanted = kwargs.get('device')
        if wanted is None or name in ('device', 'autocast'):
            return func(*args, **kwargs)
        if torch.device(wanted).type == 'cuda':
            kwargs['device'] = 'cpu' if not any(isinstance(a, CudaTensor) for a in args) else None
            if kwargs['device'] is None:
                del kwargs['device']  # x.new_zeros(..., device=x.device)
            if kwargs.get('pin_memory') is False:
                del kwargs['pin_memory']
            found = func(*args, **kwargs)
            return found if isinstance(found, CudaTensor) else to_cuda(found)
        if any(isinstance(one, CudaTensor) for one in args):  # x.new_zeros(..., device='cpu')
            return func(*map(hold, args), **kwargs)
        return func(*args, **kwargs)

    def differentiate(self, func, outputs, inputs=None, grad_outputs=None, **kwargs):
        """Run the backward pass with the mode on, which is off while it handles a call."""
        inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs or ())
        outputs = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
        if grad_outputs is None:
            grad_outputs = map(torch.ones_like, outputs)
        grads = (grad_outputs,) if isinstance(grad_outputs, Tensor) else tuple(grad_outputs)
        accumulate = func is Tensor.backward
        run = torch.autograd.Variable._execution_engine.run_backward
        words = dict(allow_unreachable=True, accumulate_grad=accumulate)
        with self:
            return run(outputs, grads, False, False, inputs, **words)

    def convert(self, func, args, kwargs):
        """Return ``x.to(...)`` or ``x.type_as(...)``."""
        x, *rest = args
        device, words = x.device, {}
        for one in [
            *rest,
            *(kwargs.pop(key) for key in ('device', 'dtype', 'other') & kwargs.keys()),
        ]:
            if isinstance(one, Tensor):
                device, words['dtype'] = one.device, one.dtype
            elif isinstance(one, torch.dtype):
                words['dtype'] = one
            elif isinstance(one, (str, int, torch.device)) and not isinstance(one, bool):
                device = torch.device('cuda', one) if type(one) is int else torch.device(one)
        kwargs.pop('non_blocking', None)
        x = to_cuda(x) if device.type == 'cuda' else to_cpu(x)
        words.update(kwargs)
        return Tensor.to(x, **words) if words else x
