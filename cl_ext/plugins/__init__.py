"""Continual-learning methods as Avalanche plugins, one file a method."""

from cl_ext.plugins.agem import AGEMPlugin
from cl_ext.plugins.clser import CLSERPlugin
from cl_ext.plugins.cpg import CPGPlugin
from cl_ext.plugins.den import DENPlugin
from cl_ext.plugins.der import DERPlugin
from cl_ext.plugins.dualnet import DualNetPlugin
from cl_ext.plugins.ebll import EBLLPlugin
from cl_ext.plugins.er import ERPlugin
from cl_ext.plugins.ewc import EWCPlugin
from cl_ext.plugins.expert_gate import ExpertGatePlugin
from cl_ext.plugins.gem import GEMPlugin
from cl_ext.plugins.generative_replay import GenerativeReplayPlugin
from cl_ext.plugins.hat import HATPlugin
from cl_ext.plugins.imm import IMMPlugin
from cl_ext.plugins.l2 import L2Plugin
from cl_ext.plugins.lwf import LwFPlugin
from cl_ext.plugins.mas import MASPlugin
from cl_ext.plugins.mas_local import LocalMASPlugin
from cl_ext.plugins.net2net import Net2NetPlugin
from cl_ext.plugins.ogd import OGDPlugin
from cl_ext.plugins.ogd_ema import EMAOGDPlugin
from cl_ext.plugins.packnet import PackNetPlugin
from cl_ext.plugins.pathnet import PathNetPlugin
from cl_ext.plugins.pnn import PNNPlugin
from cl_ext.plugins.rwalk import RWalkPlugin
from cl_ext.plugins.scp import SCPPlugin
from cl_ext.plugins.si import SIPlugin
from cl_ext.plugins.sim_ema import SimEMAPlugin

__all__ = [
    "AGEMPlugin",
    "CLSERPlugin",
    "CPGPlugin",
    "DENPlugin",
    "DERPlugin",
    "DualNetPlugin",
    "EBLLPlugin",
    "EMAOGDPlugin",
    "ERPlugin",
    "EWCPlugin",
    "ExpertGatePlugin",
    "GEMPlugin",
    "GenerativeReplayPlugin",
    "HATPlugin",
    "IMMPlugin",
    "L2Plugin",
    "LocalMASPlugin",
    "LwFPlugin",
    "MASPlugin",
    "Net2NetPlugin",
    "OGDPlugin",
    "PNNPlugin",
    "PackNetPlugin",
    "PathNetPlugin",
    "RWalkPlugin",
    "SCPPlugin",
    "SIPlugin",
    "SimEMAPlugin",
]
