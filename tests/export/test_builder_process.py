"""What the builder adds to a network, in TensorRT-RTX's own; it needs no GPU for that."""

import numpy as np
import pytest

pytest.importorskip("tensorrt_rtx")

import tensorrt_rtx as trt

from einsort_vla.runtime.builder_process import add_move

SHAPE, N_STEPS = (-1, 6, 3), 5


@pytest.fixture
def builder():
    return trt.Builder(trt.Logger(trt.Logger.ERROR))


@pytest.fixture
def network(builder):
    """Of a step whose velocity is a function of the actions alone."""
    made = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    actions = made.add_input("noisy_actions", trt.float32, SHAPE)
    velocity = made.add_activation(actions, trt.ActivationType.TANH).get_output(0)
    velocity.name = "velocity"
    made.mark_output(velocity)
    return made


def test_a_step_gives_the_actions_of_the_next(builder, network):
    held = add_move(trt, network, N_STEPS)
    assert held == np.float32(-1 / N_STEPS)
    outputs = [network.get_output(k) for k in range(network.num_outputs)]
    assert [(o.name, o.dtype, tuple(o.shape)) for o in outputs] == [
        (name, trt.float32, SHAPE) for name in ("velocity", "moved_actions")
    ]
    layers = [network.get_layer(k) for k in range(network.num_layers)]
    assert [layer.type.name for layer in layers] == [
        "ACTIVATION", "CONSTANT", "ELEMENTWISE", "ELEMENTWISE"
    ]  # fmt: skip
    product, total = ([layer.get_input(k).name for k in range(2)] for layer in layers[2:])
    constant, move = (layer.get_output(0).name for layer in layers[1:3])
    assert product == ["velocity", constant]
    assert total == ["noisy_actions", move]
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("noisy_actions", (1, 6, 3), (2, 6, 3), (2, 6, 3))
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    assert builder.build_serialized_network(network, config) is not None


def test_what_has_no_flow_is_refused(builder, network):
    network.get_output(0).name = "speed"
    with pytest.raises(SystemExit, match="the graph has no velocity"):
        add_move(trt, network, N_STEPS)
